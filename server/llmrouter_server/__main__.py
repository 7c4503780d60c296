"""`python -m llmrouter_server` is `llmrouter`."""

from llmrouter_server.cli import main

if __name__ == "__main__":
    main()

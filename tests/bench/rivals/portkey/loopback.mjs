// Loaded before Portkey's gateway, which has no option for the address that it listens on: keeps it off the network.
import net from "node:net";

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, host, ...rest) {
  return listen.call(this, port, host ?? "127.0.0.1", ...rest);
};

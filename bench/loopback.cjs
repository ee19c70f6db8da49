// Preloaded into a gateway that cannot be told where to listen: keeps it on loopback.
const { Server } = require('node:net');
const { listen } = Server.prototype;
Server.prototype.listen = function onLoopback(port, ...rest) {
  return typeof rest[0] === 'string' ? listen.call(this, port, ...rest) : listen.call(this, port, '127.0.0.1', ...rest);
};

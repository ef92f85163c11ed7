// Connections that are opened and hardly used, by real libraries: `idle.js serve` is the app, with Socket.IO on one port and
// gRPC on another; `idle.js visit HOST` is their clients, and `idle.js ask HOST SECONDS` asks each for slow work, once,
// on connections that were idle before.
const http = require("node:http");
const grpc = require("@grpc/grpc-js");
const { Server } = require("socket.io");
const { io } = require("socket.io-client");

const PORTS = { socket: 8000, grpc: 9000 };
const [what, host, seconds] = process.argv.slice(2);

// Messages are plain bytes, so that no schema is needed.
const bytes = { serialize: (buffer) => buffer, deserialize: (buffer) => buffer };
const work = {
  path: "/shop.Shop/Work",
  requestStream: false,
  responseStream: false,
  requestSerialize: bytes.serialize,
  requestDeserialize: bytes.deserialize,
  responseSerialize: bytes.serialize,
  responseDeserialize: bytes.deserialize,
};

function serve() {
  // A server of Socket.IO pings, every 5 s here.
  const web = http.createServer((_request, response) => response.end("here\n"));
  new Server(web, { pingInterval: 5000 }).on("connection", (socket) =>
    socket.on("work", (milliseconds, answer) => setTimeout(() => answer("done"), milliseconds)),
  );
  web.listen(PORTS.socket, "::");
  const calls = new grpc.Server();
  calls.addService({ work }, {
    work: (call, answer) => setTimeout(() => answer(null, Buffer.from("done")), Number(call.request.toString())),
  });
  calls.bindAsync(`[::]:${PORTS.grpc}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
  });
  // It drops what it has in hand.
  process.on("SIGTERM", () => process.exit(0));
}

const channel = (options = {}) =>
  new grpc.Client(`${host}:${PORTS.grpc}`, grpc.credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    ...options,
  });

const call = (client, milliseconds) =>
  new Promise((done, failed) =>
    client.makeUnaryRequest(work.path, work.requestSerialize, work.responseDeserialize, Buffer.from(`${milliseconds}`),
      (error, answer) => (error ? failed(error) : done(answer.toString()))),
  );

const opened = (client) =>
  new Promise((done, failed) => client.waitForReady(Date.now() + 20_000, (error) => (error ? failed(error) : done())));

const connected = () =>
  new Promise((done) => {
    const socket = io(`http://${host}:${PORTS.socket}`, { transports: ["websocket"], reconnection: false });
    socket.once("connect", () => done(socket));
  });

async function visit() {
  const sockets = await Promise.all([connected(), connected(), connected()]);
  const pinging = { "grpc.keepalive_time_ms": 5000, "grpc.keepalive_permit_without_calls": 1 };
  const [unused, once, kept] = [channel(), channel(), channel(pinging)];
  await Promise.all([unused, once, kept].map(opened));
  await Promise.all([once, kept].map((client) => call(client, 1)));
  console.log(`${sockets.length} sockets and 3 channels are open`);
  setInterval(() => {}, 1000);
}

async function ask() {
  const milliseconds = seconds * 1000;
  const client = channel();
  const socket = await connected();
  await call(client, 1);
  // A request right after the app's last bytes can look like a control frame: docs/what-counts-as-traffic.md.
  await new Promise((done) => setTimeout(done, 2000));
  console.log("asked");
  const answers = await Promise.all([
    call(client, milliseconds),
    new Promise((done, failed) => {
      socket.once("disconnect", failed);
      socket.emit("work", milliseconds, done);
    }),
  ]);
  console.log(`answers: ${answers}`);
  process.exit(0);
}

({ serve, visit, ask })[what]();

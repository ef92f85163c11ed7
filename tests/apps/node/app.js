// Express with a gauge of requests in flight, kept with prom-client, which says goodbye once it was told to.
const fs = require("node:fs");
const path = require("node:path");
const express = require("express");
const prometheus = require("prom-client");

const inflight = new prometheus.Gauge({ name: "http_requests_in_flight", help: "Requests in flight.", labelNames: ["method"] });
const app = express();
let draining = false;

app.post("/drain", (_request, response) => {
  draining = true;
  response.end();
});

app.use((_request, response, next) => {
  if (draining) response.set("Connection", "close");
  next();
});

app.get("/metrics", async (_request, response) => {
  response.type(prometheus.register.contentType).send(await prometheus.register.metrics());
});

app.use((request, response, next) => {
  inflight.inc({ method: request.method });
  response.once("close", () => inflight.dec({ method: request.method }));
  next();
});

// See gate.py.
const gate = ({ folder, name }) => {
  fs.writeFileSync(path.join(folder, `${name}.started`), "");
  return { closed: () => !fs.existsSync(path.join(folder, `${name}.go`)) };
};
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

app.get("/hello", (_request, response) => response.send("hello"));

app.get("/work", async (request, response) => {
  const { closed } = gate(request.query);
  while (closed()) await wait(10);
  response.json({ done: request.query.name });
});

app.post("/upload", async (request, response) => {
  gate(request.query);
  let bytes = 0;
  for await (const piece of request) bytes += piece.length;
  response.json({ bytes });
});

app.get("/stream", async (request, response) => {
  const { closed } = gate(request.query);
  response.type("text/event-stream");
  for (; closed(); await wait(100)) response.write("data: tick\n\n");
  response.end();
});

const server = app.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
server.keepAliveTimeout = server.requestTimeout = server.headersTimeout = 600_000;

// Express with a gauge of requests in flight, kept with prom-client.
const fs = require("node:fs");
const path = require("node:path");
const express = require("express");
const prometheus = require("prom-client");

const inflight = new prometheus.Gauge({ name: "http_requests_in_flight", help: "Requests in flight.", labelNames: ["method"] });
const app = express();

app.get("/metrics", async (_request, response) => {
  response.type(prometheus.register.contentType).send(await prometheus.register.metrics());
});

app.use((request, response, next) => {
  inflight.inc({ method: request.method });
  response.once("close", () => inflight.dec({ method: request.method }));
  next();
});

app.get("/work", async (request, response) => {
  const { folder, name } = request.query;
  fs.writeFileSync(path.join(folder, `${name}.started`), "");
  while (!fs.existsSync(path.join(folder, `${name}.go`))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  response.json({ done: name });
});

const server = app.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));

// An Express app: /hello, and /slow?seconds=N. With a second argument it has a handler for SIGTERM.
const express = require("express");

const app = express();
app.get("/hello", (_request, response) => response.send("hello"));
app.get("/slow", (request, response) => setTimeout(() => response.send("done"), 1000 * request.query.seconds));
const server = app.listen(Number(process.argv[2]), "127.0.0.1");
if (process.argv[3]) process.on("SIGTERM", () => server.close());

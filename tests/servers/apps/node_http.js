// Node's own http server: /hello, and /slow?seconds=N. With a second argument it has a handler for SIGTERM.
const http = require("http");

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  setTimeout(() => response.end(url.pathname === "/slow" ? "done" : "hello"), 1000 * (url.searchParams.get("seconds") || 0));
});
server.listen(Number(process.argv[2]), "127.0.0.1");
if (process.argv[3]) process.on("SIGTERM", () => server.close());

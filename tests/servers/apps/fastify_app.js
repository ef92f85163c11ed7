// A Fastify app: /hello, and /slow?seconds=N. With a second argument it has a handler for SIGTERM.
const fastify = require("fastify")();

fastify.get("/hello", async () => "hello");
fastify.get("/slow", async (request) => {
  await new Promise((resolve) => setTimeout(resolve, 1000 * request.query.seconds));
  return "done";
});
fastify.listen({ port: Number(process.argv[2]), host: "127.0.0.1" });
if (process.argv[3]) process.on("SIGTERM", () => fastify.close());

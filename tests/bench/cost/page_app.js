// A real app whose metrics page is as large as PAGE_BYTES says: Node and prom-client, for the bench `cost`.
const http = require('node:http');
const client = require('prom-client');

const inside = new client.Gauge({ name: 'app_requests_inprogress', help: 'Requests that are under way.' });
const took = new client.Histogram({ name: 'app_request_seconds', help: 'How long requests took.', labelNames: ['handler', 'method'] });

function observe(first, last) {
  for (let n = first; n < last; n += 1) took.observe({ handler: `/api/v1/orders/${n}/items`, method: 'GET' }, 0.01);
}

async function main() {
  // Some handlers tell how long the lines of one are; the rest is as many as the page needs.
  observe(0, 10);
  const few = (await client.register.metrics()).length;
  observe(10, 20);
  const each = ((await client.register.metrics()).length - few) / 10;
  observe(20, Math.floor((Number(process.env.PAGE_BYTES) - few) / each) + 10);
  const server = http.createServer(async (request, response) => {
    if (request.url === '/metrics') {
      response.end(await client.register.metrics());
      return;
    }
    inside.inc();
    response.end('ok');
    inside.dec();
  });
  server.listen(Number(process.argv[3]), process.argv[2]);
}

main();

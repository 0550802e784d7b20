// HTTP servers on Node's own libraries that tell what they are asked.
//
// Usage: origin.mjs http1|http2
//
// It prints {"port": …}, and then a line of JSON for each request that it has read to its end.
// `http2` is HTTP/2 without TLS, with prior knowledge.

import { createServer as http1 } from "node:http";
import { createServer as http2 } from "node:http2";

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const listener = (request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("error", () => {});
  request.on("end", () => {
    // Over HTTP/2 what is broken off has an end, too.
    if (request.aborted || request.stream?.aborted) return;
    const { method, url: target, headers } = request;
    print({
      id: headers["x-request-id"],
      method,
      target,
      host: headers[":authority"] ?? headers.host,
      body: Buffer.concat(chunks).toString("latin1"),
      trailers: { ...request.trailers },
    });
    response.end(`${method} ${target}`);
  });
};

const server = process.argv[2] === "http2" ? http2(listener) : http1(listener);
server.listen(0, "127.0.0.1", () => print({ port: server.address().port }));

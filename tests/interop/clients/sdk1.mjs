// npm @modelcontextprotocol/sdk 1.x over HTTP+SSE and Streamable HTTP.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { main } from './exercise.mjs';

await main(async (url, requestInit, variant) => {
  const client = new Client({ name: 'interop', version: '1' });
  const transport = variant === 'sse'
    ? new SSEClientTransport(url, { requestInit })
    : new StreamableHTTPClientTransport(url, { requestInit });
  await client.connect(transport);
  return {
    client,
    withOptions: (options) => [undefined, options],
    close: async () => {
      if (variant !== 'sse') await transport.terminateSession();
      await client.close();
    },
  };
});

// npm @modelcontextprotocol/client 2.x over HTTP+SSE and Streamable HTTP (variants sse, legacy and auto).
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { main } from './exercise.mjs';

await main(async (url, requestInit, variant) => {
  const mode = variant === 'auto' ? 'auto' : 'legacy';
  const client = new Client({ name: 'interop', version: '1' }, { versionNegotiation: { mode } });
  const transport = variant === 'sse'
    ? new SSEClientTransport(url, { requestInit })
    : new StreamableHTTPClientTransport(url, { requestInit });
  await client.connect(transport);
  return {
    client,
    withOptions: (options) => [options],
    close: async () => {
      if (variant !== 'sse') await transport.terminateSession();
      await client.close();
    },
  };
});

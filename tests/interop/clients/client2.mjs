// npm @modelcontextprotocol/client 2.x over HTTP+SSE and Streamable HTTP (variants sse, sse-auto, legacy and auto).
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { main } from './exercise.mjs';

await main(async (url, requestInit, variant) => {
  const mode = variant.endsWith('auto') ? 'auto' : 'legacy';
  const client = new Client({ name: 'interop', version: '1' }, { versionNegotiation: { mode } });
  const isSse = variant.startsWith('sse');
  const transport = isSse
    ? new SSEClientTransport(url, { requestInit })
    : new StreamableHTTPClientTransport(url, { requestInit });
  await client.connect(transport);
  return {
    client,
    withOptions: (options) => [options],
    close: async () => {
      if (!isSse) await transport.terminateSession();
      await client.close();
    },
  };
});

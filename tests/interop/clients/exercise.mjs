// What every JavaScript client does with server-everything: the same as exercise.py.
import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';

const CALLS_AT_ONCE = 16;
const TIME_LIMIT = 60_000;

async function exercise(client, marker) {
  const names = (await client.listTools()).tools.map((tool) => tool.name);
  for (const name of ['echo', 'get-sum', 'trigger-long-running-operation']) {
    assert.ok(names.includes(name), `tools/list has no ${name}: ${names}`);
  }
  const text = async (name, args, options) => {
    const result = await client.callTool({ name, arguments: args }, ...options ?? []);
    return [Boolean(result.isError), result.content[0].text];
  };

  // Beyond ASCII, and what JSON, SSE and line framing are tempted to alter.
  const odd = `${marker} žluťoučký 🦀 \u2028 \\n "quoted"\n\ttwo lines\r\n`;
  assert.deepEqual(await text('echo', { message: odd }), [false, `Echo: ${odd}`]);
  assert.deepEqual(await text('get-sum', { a: 2, b: 5 }), [false, 'The sum of 2 and 5 is 7.']);

  await echoes(client, marker, CALLS_AT_ONCE);

  const seen = [];
  const onprogress = ({ progress, total }) => seen.push([progress, total]);
  const [failed, said] = await text(
    'trigger-long-running-operation', { duration: 0.3, steps: 3 }, client.withOptions({ onprogress }));
  assert.ok(!failed && said.startsWith('Long running operation completed.'), said);
  // The SDKs lose a progress that arrives together with the answer; test_same_ids.py looks at the wire itself.
  assert.deepEqual(seen.filter(([done]) => done !== 3), [[1, 3], [2, 3]], 'progress');

  const unknown = await text('no-such-tool', {}).catch((error) => [true, String(error)]);
  assert.ok(unknown[0] && unknown[1].includes('no-such-tool'), `unknown tool: ${unknown}`);
}

async function echoes(client, marker, count) {
  await Promise.all(Array.from({ length: count }, async (_, number) => {
    const message = `${marker}/${number}`;
    const result = await client.callTool({ name: 'echo', arguments: { message } });
    assert.equal(result.content[0].text, `Echo: ${message}`, 'echo among others');
  }));
}

// Says that it is connected, waits for the others, then asks much at once.
async function crowd(client, marker) {
  console.log('ready');
  const input = createInterface({ input: process.stdin });
  await new Promise((resolve) => input.once('line', resolve));
  input.close();
  for (let wave = 0; wave < 5; wave += 1) await echoes(client, `${marker}/${wave}`, CALLS_AT_ONCE);
}

// Calls more at once than the server takes: some are answered, the others have an error each, and the session goes on.
async function overTheLimit(client) {
  const call = { name: 'trigger-long-running-operation', arguments: { duration: 1, steps: 1 } };
  for (let round = 0; round < 3; round += 1) {
    const done = await Promise.allSettled(Array.from({ length: 40 }, () => client.callTool(call)));
    const answered = done.filter(({ status }) => status === 'fulfilled').map(({ value }) => value.content[0].text);
    const errors = done.filter(({ status }) => status === 'rejected').map(({ reason }) => String(reason));
    assert.ok(answered.length >= 4 && errors.length >= 20, `${answered.length} answers, ${errors.length} errors: ${errors[0]}`);
    assert.ok(answered.every((text) => text.startsWith('Long running')), `accepted calls: ${answered}`);
    assert.ok(errors.every((error) => error.includes('too many calls are waiting')), `errors: ${errors[0]}`);
    const result = await client.callTool({ name: 'echo', arguments: { message: 'goes on' } });
    assert.equal(result.content[0].text, 'Echo: goes on', 'the session');
  }
}

/**
 * Runs as `CLIENT URL KEY VARIANT [MARKER]`: with the MARKER `limit` it calls more than the server takes, with
 * another it is one of a crowd; without, it goes through everything.
 * `connect(url, init, variant)` gives the SDK's client and its `close()`. `withOptions` hides where the SDK takes them.
 */
export async function main(connect) {
  const [url, key, variant, marker] = process.argv.slice(2);
  const late = setTimeout(() => { console.error('timed out'); process.exit(1); }, TIME_LIMIT);
  const { client, withOptions, close } = await connect(new URL(url), { headers: { Authorization: `Bearer ${key}` } }, variant);
  client.withOptions = withOptions;
  if (marker === 'limit') await overTheLimit(client);
  else await (marker ? crowd(client, marker) : exercise(client, 'alone'));
  await close();
  clearTimeout(late);
  console.log('ok');
}

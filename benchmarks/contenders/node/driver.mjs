// Drives one client of Node: `node driver.mjs apns|webpush`. `../driven.py` has the protocol.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import https from "node:https";

const [kind] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const job = JSON.parse((await lines.next()).value);

async function workers(count, atOnce, send) {
  let next = 0;
  async function worker() {
    while (next < count) await send(next++);
  }
  await Promise.all(Array.from({ length: atOnce }, worker));
}

function apns() {
  const library = require("@parse/node-apn");
  const { hostname, port } = new URL(job.url);
  const token = { key: job.key, keyId: "ABCDE12345", teamId: "ABCDE12345" };
  const provider = new library.Provider({ token, production: false, address: hostname, port: Number(port) });
  async function run(count) {
    // One notification to many tokens at once is what the library offers for this.
    const note = new library.Notification();
    note.topic = job.topic;
    note.pushType = "alert";
    note.priority = 10;
    note.expiry = 1900000000;
    note.alert = { title: job.title, body: job.body };
    note.payload = { n: 1 };
    for (let sent = 0; sent < count; sent += job.atOnce) {
      const size = Math.min(job.atOnce, count - sent);
      const result = await provider.send(note, Array.from({ length: size }, (_, n) => (sent + n).toString(16).padStart(64, "0")));
      if (result.failed.length) throw new Error(`not all were sent: ${JSON.stringify(result.failed[0])}`);
    }
  }
  return { run, close: () => provider.shutdown() };
}

function webpush() {
  const library = require("web-push");
  library.setVapidDetails(job.subject, job.publicKey, job.privateKey);
  const agent = new https.Agent({ keepAlive: true, maxSockets: job.atOnce });
  async function run(count) {
    await workers(count, job.atOnce, async (number) => {
      const browser = job.browsers[number % job.browsers.length];
      const answer = await library.sendNotification(browser, job.payload, { TTL: 86400, agent });
      if (answer.statusCode !== 201) throw new Error(`the gateway answered ${answer.statusCode}`);
    });
  }
  return { run, close: () => agent.destroy() };
}

const client = { apns, webpush }[kind]();
await client.run(job.warmUp);
console.log("ready");
for await (const _ of lines) {
  const before = process.cpuUsage();
  const begun = process.hrtime.bigint();
  await client.run(job.requests);
  const wall = Number(process.hrtime.bigint() - begun) / 1e9;
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ requests: job.requests, cpu: (user + system) / 1e6, wall }));
}
client.close();
process.exit(0);

// The client of the fanout service for web pages: one ES module without dependencies.
//
//   import { Fanout } from "https://push.example.com/client/fanout.js";
//
//   const fanout = new Fanout({ service: "https://push.example.com", token: async () => (await fetch("/my-token")).text() });
//   fanout.addEventListener("change", () => draw(fanout.items));
//   await fanout.start();                               // reads the feed, and follows it
//   await fanout.subscribe({ applicationServerKey });   // pushes while the page is closed; asks the user, so call it from a click
//   await fanout.dismiss(id);                           // and it leaves the tray of every other device
//
// Events: `change` (detail: the items that differ), `status` (detail: "offline", "synchronizing" or "synchronized"), `subscription`
// (detail: "expiring", "expired" or "ended": call subscribe again), `unauthorized` (the token was refused although it was asked for anew).

const RETRY = 1000; // milliseconds; doubled with each failure in a row, up to
const RETRY_CAP = 60_000;
const REVOKED = ["device", "unsid"]; // reasons that say: this device's subscription is no more

/** A refusal by the service. `status` is HTTP's, `code` Microsoft Graph's word for it, `reason` what a program decides by. */
export class FanoutError extends Error {
  constructor(status, code, message, reason = "") {
    super(message);
    this.name = "FanoutError";
    this.status = status;
    this.code = code;
    this.reason = reason;
  }
}

export class Fanout extends EventTarget {
  #token;
  #bearer = null;
  #cursor = null;
  #stream = null;
  #running = false;
  #failures = 0;
  #seen = new Map(); // by item: the number of the last change that was told, deletions too

  /**
   * `service` is the service's address. `token` gives the user's bearer token: a text, or a function (which may be asynchronous, and is called
   * again when a token was refused). `device` names this browser and is made up and kept where it is left out. `binding` is the
   * name of the Web Push binding in the service's configuration.
   */
  constructor({ service = location.origin, token, device = null, binding = "webpush" }) {
    super();
    this.service = String(service).replace(/\/+$/, "");
    this.binding = binding;
    this.device = device;
    this.unsid = null;
    this.status = "offline";
    /** Every item of the feed by its id, deleted ones left out. */
    this.items = new Map();
    this.#token = token;
  }

  // -- the feed

  /** Read the feed and follow it until `stop`. Resolves when everything that is there has been read. */
  async start() {
    if (this.#running) return;
    this.#running = true;
    await this.#restore();
    await this.refresh();
    this.#follow();
  }

  /** Follow no longer. */
  stop() {
    this.#running = false;
    this.#stream?.abort();
    this.#say("offline");
  }

  /** Read what has changed since the last time; the whole feed where that is not known. */
  async refresh() {
    this.#say("synchronizing");
    let more = true;
    while (more) {
      const query = this.#cursor === null ? "" : `&cursor=${encodeURIComponent(this.#cursor)}&status=any`;
      let page;
      try {
        page = await this.#call("GET", `/v1/me/feed?limit=1000${query}`);
      } catch (error) {
        if (error.status !== 410) throw error;
        this.#forget(); // the service asks to begin anew
        continue;
      }
      await this.#take(page.items, page.cursor);
      more = page.more;
    }
    this.#say("synchronized");
  }

  /** One item, asked of the service. */
  get(id) {
    return this.#call("GET", `/v1/me/feed/${encodeURIComponent(id)}`);
  }

  markRead(id, read = true) {
    return this.#change(id, { read });
  }

  activate(id) {
    return this.#change(id, { read: true, action: "activated" });
  }

  dismiss(id) {
    return this.#change(id, { action: "dismissed" });
  }

  snooze(id) {
    return this.#change(id, { action: "snoozed" });
  }

  /** Delete it, here and on every other device. */
  async remove(id) {
    const { item } = await this.#call("DELETE", `/v1/me/feed/${encodeURIComponent(id)}`);
    await this.#take([item]);
  }

  // -- pushes while the page is closed

  /**
   * Ask the browser for pushes and tell the service. Without `applicationServerKey` (what `fanout keys vapid` shows as public) this device
   * only polls and follows. `worker` is the service worker's script, `receive` what it wants: "push", "signal" or "none".
   * Sent again it renews the subscription, which keeps its UNSID. Rejects where the user says no.
   */
  async subscribe({ applicationServerKey = null, worker = new URL("worker.js", import.meta.url).href, scope, receive = "push" } = {}) {
    await this.#restore();
    const wanted = { device_id: this.device, receive };
    if (applicationServerKey !== null) {
      if ((await Notification.requestPermission()) !== "granted") throw new FanoutError(0, "denied", "The user allows no notifications.");
      await navigator.serviceWorker.register(worker, scope ? { scope } : undefined);
      const registration = await navigator.serviceWorker.ready;
      const options = { userVisibleOnly: true, applicationServerKey };
      let held = await registration.pushManager.getSubscription();
      if (held && !sameKey(held.options.applicationServerKey, applicationServerKey)) {
        await held.unsubscribe(); // made for another key: what is sent for ours would be refused
        held = null;
      }
      held ??= await registration.pushManager.subscribe(options);
      wanted.binding = this.binding;
      wanted.address = held.toJSON();
    }
    const answer = await this.#call("POST", "/v1/me/subscriptions", wanted);
    this.unsid = answer.unsid;
    if (this.#running) {
      this.#say("offline"); // for a moment: it goes on as this device
      this.#stream?.abort();
    }
    await keep({ unsid: this.unsid, subscription: answer.id });
    return answer;
  }

  /** Sign this device out: it gets nothing more, and nothing of the user stays here. */
  async unsubscribe() {
    const subscription = await kept("subscription");
    if (subscription) {
      await this.#call("DELETE", `/v1/me/subscriptions/${subscription}`).catch((error) => {
        if (error.status !== 404) throw error;
      });
    }
    const registration = await navigator.serviceWorker?.getRegistration();
    await (await registration?.pushManager?.getSubscription())?.unsubscribe();
    for (const shown of (await registration?.getNotifications()) ?? []) shown.close();
    this.stop();
    this.unsid = null;
    this.#forget();
    await keep({ unsid: null, subscription: null, bearer: null, cursor: null });
  }

  // -- inside

  async #restore() {
    this.device ??= (await kept("device")) ?? crypto.randomUUID();
    this.unsid ??= await kept("unsid");
    await keep({ service: this.service, device: this.device });
  }

  async #change(id, change) {
    const { item } = await this.#call("PATCH", `/v1/me/feed/${encodeURIComponent(id)}`, change);
    await this.#take([item]);
    return item;
  }

  /** One request. A refused token is asked for anew, once. */
  async #call(method, path, body) {
    const answer = await this.#fetch(path, { method, body });
    if (answer.status === 204) return null;
    return answer.json();
  }

  async #fetch(path, { method = "GET", body, headers = {}, signal } = {}) {
    for (let attempt = 0; ; attempt++) {
      if (this.#bearer === null || attempt) {
        this.#bearer = typeof this.#token === "function" ? await this.#token({ renew: attempt > 0 }) : this.#token;
        await keep({ bearer: this.#bearer });
      }
      const all = { authorization: `Bearer ${this.#bearer}`, ...headers };
      if (this.unsid) all["x-uns-id"] = this.unsid;
      if (body !== undefined) all["content-type"] = "application/json";
      const answer = await fetch(this.service + path, {
        method,
        headers: all,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: "no-store",
      });
      if (answer.ok) return answer;
      const refusal = (await answer.json().catch(() => ({}))).error ?? {};
      const reason = refusal.innerError?.code ?? "";
      if (answer.status === 401 && attempt === 0 && typeof this.#token === "function") continue;
      if (answer.status === 401) this.dispatchEvent(new CustomEvent("unauthorized"));
      if (answer.status === 403 && this.unsid && REVOKED.includes(reason)) {
        this.unsid = null; // ended elsewhere: go on as a browser without a subscription
        await keep({ unsid: null, subscription: null });
        this.dispatchEvent(new CustomEvent("subscription", { detail: "expired" }));
        if (attempt < 2) continue;
      }
      throw new FanoutError(answer.status, refusal.code ?? "", refusal.message ?? `The service answered ${answer.status}.`, reason);
    }
  }

  #forget() {
    this.#cursor = null;
    this.items.clear();
    this.#seen.clear();
  }

  /**
   * Items as they are now: kept, told where they are news, and taken out of the tray where they need no attention any more. What this
   * page changed comes again when the feed is read anew, and an answer may come after what the stream told later: neither is news.
   */
  async #take(items, cursor) {
    const news = items.filter((item) => {
      const number = Number(item.etag.slice(1, -1)); // grows with each change of an item
      if (number <= this.#seen.get(item.id)) return false;
      this.#seen.set(item.id, number);
      if (item.status === "deleted") return this.items.delete(item.id);
      this.items.set(item.id, item);
      return true;
    });
    if (cursor) {
      this.#cursor = cursor;
      await keep({ cursor });
    }
    if (items.length) await clearTray(items);
    if (news.length) this.dispatchEvent(new CustomEvent("change", { detail: news }));
  }

  /** Server-sent events by fetch, because EventSource cannot send a token. */
  async #follow() {
    while (this.#running) {
      try {
        await this.#read();
        this.#failures = 0;
      } catch (error) {
        if (!this.#running) return;
        if (error.status === 401 || error.status === 403) return this.stop();
        if (error.name !== "AbortError") this.#failures += 1;
        this.#say("offline");
      }
      if (!this.#running) return;
      const ceiling = Math.min(RETRY_CAP, RETRY * 2 ** Math.min(this.#failures, 10));
      if (this.#failures) await new Promise((done) => setTimeout(done, Math.random() * ceiling));
      await this.refresh().catch(() => (this.#failures += 1));
    }
  }

  async #read() {
    this.#stream = new AbortController();
    const headers = { accept: "text/event-stream", "last-event-id": this.#cursor };
    const answer = await this.#fetch("/v1/me/feed/events", { headers, signal: this.#stream.signal });
    this.#say("synchronized");
    const lines = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(bySeparator());
    const reader = lines.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.#failures = 0;
      const event = parse(value);
      if (event.type === "change") await this.#take([event.data], event.id);
      else if (event.type === "resync") {
        this.#forget();
        await this.refresh();
      } else if (event.type === "subscription") {
        this.dispatchEvent(new CustomEvent("subscription", { detail: event.data.state }));
      } else if (event.type === "unauthorized") this.#bearer = null;
    }
  }

  #say(status) {
    if (status === this.status) return;
    this.status = status;
    this.dispatchEvent(new CustomEvent("status", { detail: status }));
  }
}

/** Cuts a stream of text where events end: at an empty line (HTML standard, section 9.2.6; the service ends its lines with LF). */
function bySeparator() {
  let rest = "";
  return new TransformStream({
    transform(text, controller) {
      const parts = (rest + text).split("\n\n");
      rest = parts.pop();
      for (const part of parts) controller.enqueue(part);
    },
  });
}

function parse(text) {
  const event = { type: "message", id: null, data: null };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue; // a comment: a sign of life
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event.type = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data = JSON.parse(value);
  }
  return event;
}

async function clearTray(items) {
  const registration = await navigator.serviceWorker?.getRegistration();
  if (!registration) return;
  for (const item of items) {
    if (item.status !== "deleted" && !item.read && item.action === "none") continue;
    for (const shown of await registration.getNotifications({ tag: item.id })) shown.close();
  }
}

function sameKey(held, wanted) {
  if (!held) return false;
  const text = btoa(String.fromCharCode(...new Uint8Array(held)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") === wanted.replace(/=+$/, "");
}

// What page and service worker both need to know: where the service is, which device this is, the bearer token, and up to which cursor
// the feed is known. In the Cache API, a value by its name, because that is the least that both of them have.

async function kept(name) {
  const found = await (await caches.open("fanout")).match(`/.fanout/${name}`);
  return found ? found.json() : null;
}

async function keep(values) {
  const cache = await caches.open("fanout");
  for (const [name, value] of Object.entries(values)) {
    if (value === null) await cache.delete(`/.fanout/${name}`);
    else await cache.put(`/.fanout/${name}`, new Response(JSON.stringify(value)));
  }
}

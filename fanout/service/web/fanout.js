// The client of the fanout service for web pages: an ES module without dependencies, beside the files that it imports.
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
// (detail: "renewed", or why there is none: "denied" where the browser allows no notifications, "ended" where the service gives none now),
// `counts` (detail: `{unread, unseen}`), `user` (detail: the key of the user of the token, null after signing out), `unauthorized` (the
// token was refused although it was asked for anew) and `stopped` (detail: the refusal after which the client follows no longer).

import "./store.js";
import { Caller, FanoutError } from "./caller.js";
import { Device, clearTray } from "./device.js";
import { Items } from "./items.js";
import { Line } from "./line.js";

export { FanoutError };

const store = globalThis.fanoutStore;
const RESEND = 5000; // milliseconds after which a failed request is sent again, and up to twice that
const SILENCE = 45_000; // of a stream, whose signs of life come every 15 seconds: the connection is dead without having said so

export class Fanout extends EventTarget {
  #caller;
  #device;
  #items = new Items();
  #newest;
  #cursor = null;
  #older = null; // the cursor of the page after the newest ones, where not everything has been read
  #listing = false; // whether #cursor is of such a page: the stream goes on from it, a reader does not
  #line;
  #resend = null;
  #renewal = null;
  #told = null; // last of the subscription

  /**
   * `service` is the service's address. `token` gives the user's bearer token: a text, or a function (which may be asynchronous, and is called
   * again when a token was refused). `device` names this browser and is made up and kept where it is left out. `binding` is the
   * name of the Web Push binding in the service's configuration. `newest`: read this many items at first, and older ones by `more()`;
   * null reads all. `applicationServerKey`: the key of today, so that a browser that subscribed for another subscribes again.
   * `store` and `silence` (milliseconds without a sign of life) are for tests.
   */
  constructor({ service = location.origin, token, device = null, binding = "webpush", newest = null, applicationServerKey = null, store: at = null, silence = SILENCE }) {
    super();
    this.status = "offline";
    /** The key of the token's user (`GET /v1/me`), null before it is known. */
    this.user = null;
    /** How many items are unread, and how many have come since the user last looked: `{unread, unseen}`, null before it is known. */
    this.counts = null;
    this.#newest = newest;
    this.#caller = new Caller(String(service).replace(/\/+$/, ""), token, at, {
      became: (user) => this.#become(user),
      refused: () => this.#tell("unauthorized"),
      lost: (unsid) => this.#device.lost(unsid).then(() => this.#subscribeAgain()),
    });
    this.#device = new Device(this.#caller, { binding, name: device, applicationServerKey });
    this.#line = new Line(
      {
        connect: (run) => this.#connect(run),
        open: (signal) => this.#open(signal),
        event: (event, run) => this.#event(event, run),
        say: (status) => this.#say(status),
        stopped: (error) => {
          this.stop();
          this.#tell("stopped", error);
        },
      },
      silence,
    );
  }

  get service() {
    return this.#caller.service;
  }

  /** Every item of the feed by its id as the user has it, deleted ones left out; unsent changes are applied already. */
  get items() {
    return this.#items.shown;
  }

  /** The name of this browser as a device of the user's. */
  get device() {
    return this.#device.name;
  }

  get unsid() {
    return this.#device.unsid;
  }

  /** How many items have changes that the service has not confirmed yet. */
  get waiting() {
    return this.#items.unsent.size;
  }

  /** Whether there are older items to be had by `more()`. */
  get hasMore() {
    return this.#older !== null;
  }

  get #at() {
    return this.#caller.at;
  }

  // -- the feed

  /**
   * Read the feed and follow it until `stop`. Resolves when everything that is there has been read, or when the service cannot be
   * reached now: then it goes on trying. Rejects where the service refuses.
   */
  async start() {
    if (this.#line.running) return;
    const done = this.#line.start();
    this.#line.finally(this.#device.watch(() => this.#subscribeAgain()));
    this.#line.finally(store.listen((said) => this.#hear(said)));
    await done;
  }

  /** Follow no longer: nothing is taken in from now on, answers under way neither. */
  stop() {
    this.#line.stop();
    clearTimeout(this.#renewal);
    clearTimeout(this.#resend);
    this.#resend = null;
  }

  /** Read the changes since the last time; the whole feed, or the newest items, where that is not known. */
  async refresh() {
    await this.#caller.known();
    await this.#refresh();
  }

  async #refresh(run = null) {
    run?.throwIfAborted();
    this.#say("synchronizing");
    for (let more = !this.#listing; more; ) {
      const begins = this.#cursor === null;
      const newest = begins && this.#newest !== null;
      const query = newest ? `limit=${this.#newest}&order=newest` : begins ? "limit=1000" : `limit=1000&cursor=${encodeURIComponent(this.#cursor)}&status=any`;
      let page;
      try {
        page = await this.#call("GET", `/v1/me/feed?${query}`);
      } catch (error) {
        // The service asks to begin anew, or it is another one, which does not know the cursor.
        if (begins || (error.status !== 410 && error.status !== 400)) throw error;
        run?.throwIfAborted();
        await this.#forget();
        continue;
      }
      // A page that is closed is not seen: the worker shows what it has not read.
      run?.throwIfAborted();
      if (newest) {
        this.#older = page.more ? page.cursor : null;
        await store.keep(this.#at, this.user, { older: this.#older });
      }
      this.#listing = newest && page.more;
      await this.#take(page.items, page.cursor);
      more = page.more && !newest;
    }
    this.#changed(this.#items.left());
    this.#say("synchronized");
  }

  /** Read the next older items, where `newest` left some out. Resolves with whether there are more. */
  async more(limit = this.#newest ?? 100) {
    if (this.#older === null) return false;
    try {
      const page = await this.#call("GET", `/v1/me/feed?limit=${limit}&cursor=${encodeURIComponent(this.#older)}`);
      this.#older = page.more ? page.cursor : null;
      await store.keep(this.#at, this.user, { older: this.#older });
      await this.#take(page.items);
    } catch (error) {
      if (error.status !== 410 && error.status !== 400) throw error;
      await this.#forget();
      await this.refresh();
    }
    return this.hasMore;
  }

  /** One item, asked of the service. */
  get(id) {
    return this.#call("GET", `/v1/me/feed/${encodeURIComponent(id)}`);
  }

  /**
   * Changes are kept before they are sent, and sent again until the service has them: with a token of this user, by this page, a later one or
   * the service worker. Each resolves with the item as it is then, `unsent` where it could not be sent now; rejects where it never can be.
   */
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

  /**
   * Mark everything as read that was there at the last change known here, items that were not read into this page too. Where nothing can be
   * sent now, those of this page are sent later.
   */
  async markAllRead() {
    await this.#caller.known();
    const [user, cursor] = [this.user, this.#cursor];
    const unread = [...this.items.values()].filter((item) => !item.read);
    const changes = await Promise.all(unread.map((item) => store.want(this.#at, user, item.id, { read: true }, this.#items.served.get(item.id))));
    this.#changed(this.#items.show(this.#items.wait(changes, [])));
    try {
      if (cursor !== null) await this.#call("PATCH", "/v1/me/feed", { read: true, until: cursor });
      if (!this.#listing) await this.refresh(); // so that they are not sent one by one as well
      await this.#flush();
    } catch (error) {
      this.#sendLater();
      if (error.status === 403) throw error;
    }
  }

  /** The user has seen the items, up to this one or all of them: none of them is `unseen` any more. */
  async look(id = null) {
    this.#count(await this.#call("PUT", "/v1/me/seen", id === null ? {} : { item: id }));
  }

  /** Delete it, here and on every other device. */
  async remove(id) {
    await this.#change(id, { remove: true });
  }

  // -- this browser as a device of the user's

  /**
   * Ask the browser for pushes and tell the service. Without `applicationServerKey` (the public key of `fanout keys vapid`) this device
   * only polls and follows. `worker` is the service worker's script, `renderer` a classic script of the worker's origin that
   * shows items without a title, `receive` the wish: "push", "signal" or "none". From then on it is renewed by itself. Rejects where the
   * user says no.
   */
  async subscribe(options = {}) {
    await this.#caller.known();
    const answer = await this.#device.subscribe(options);
    this.#line.restart();
    return answer;
  }

  /**
   * Sign this device out: it gets nothing more, and nothing of the user stays here but the ids of changes that could not be sent. Where the
   * service could not be told it rejects, after everything here is done.
   */
  async unsubscribe() {
    await this.#caller.known().catch(() => {});
    const user = (this.#caller.user = this.user ??= await store.kept(this.#at, "", "user"));
    if (user === null) return this.stop();
    const failure = await this.#flush()
      .then(() => this.#device.end())
      .catch((error) => error);
    this.stop();
    await this.#device.clear();
    await store.forget(this.#at, user);
    await store.keep(this.#at, user, { bearer: null, older: null });
    await store.announce(user, [], { signedOut: true });
    await this.#leave();
    if (failure) throw failure;
  }

  // -- the caller

  /** Go on as this user, with her stored data; null is no user. */
  async #become(user) {
    this.user = user;
    this.#cursor = this.#older = this.counts = null;
    this.#listing = false;
    this.#items.clear();
    if (user !== null) {
      await this.#device.enter(this.#at, user);
      const [{ items, unsent }, [cursor, older]] = await Promise.all([store.load(this.#at, user), store.kept(this.#at, user, "cursor", "older")]);
      if (older !== null && this.#newest === null) await this.#forget(); // the stored items have gaps, and all are wanted
      else {
        this.#cursor = cursor;
        this.#older = older;
        this.#items.take(items);
      }
      this.#items.show(this.#items.wait(unsent));
      this.#items.show(items.map((item) => item.id));
      this.#line.restart();
    }
    if (this.status === "synchronized") this.#say("offline"); // it was, with another's feed
    this.#tell("user", user);
    this.#tell("change", [...this.items.values()]);
  }

  #call(method, path, body, headers) {
    return this.#caller.call(method, path, { body, headers, unsid: this.unsid });
  }

  async #leave() {
    this.#caller.drop();
    this.#caller.user = null;
    await this.#become(null);
  }

  // -- items

  async #change(id, wanted) {
    await this.#caller.known();
    const user = this.user;
    const found = this.#items.find(id);
    const change = await store.want(this.#at, user, found?.id ?? id, wanted, found && this.#items.served.get(found.id));
    this.#changed(this.#items.show(this.#items.wait([change], [])));
    await store.announce(user, [change.item]);
    const refused = await this.#flush().catch((error) => {
      this.#sendLater();
      if (error.status === 403) throw error;
      return [];
    });
    const mine = refused.find((each) => each.change.item === change.item);
    if (mine) throw mine.error;
    return this.items.get(change.item) ?? null;
  }

  /** Send waiting changes. Returns those that were refused for good. */
  async #flush() {
    const user = this.user;
    const mine = () => this.user === user;
    const ask = (method, path, body, headers) => {
      if (!mine()) throw new FanoutError(0, "user", "Another user has signed in.");
      return this.#call(method, path, body, headers);
    };
    try {
      return await store.flush(this.#at, user, ask, async (items) => mine() && this.#take(items));
    } finally {
      const unsent = await store.waiting(this.#at, user); // another page or the worker may have sent some of it
      if (mine()) this.#changed(this.#items.show(this.#items.wait(unsent)));
    }
  }

  #sendLater() {
    this.#device.syncLater();
    if (!this.#line.running || this.#resend !== null) return;
    const again = () => {
      this.#resend = null;
      this.#flush().catch(() => this.#sendLater());
    };
    this.#resend = setTimeout(again, RESEND * (1 + Math.random()));
  }

  async #forget() {
    this.#cursor = this.#older = null;
    this.#listing = false;
    this.#items.forget();
    await store.forget(this.#at, this.user);
    await store.keep(this.#at, this.user, { older: null });
  }

  /**
   * Items as they are now: kept, told where they are news, and taken out of the tray where they need no attention any more.
   * This page's own changes come again when the feed is read anew, and an answer may come after what the stream told later: neither is news.
   */
  async #take(items, cursor = null) {
    const user = this.user;
    const news = this.#items.take(items);
    const ids = news.map((item) => item.id);
    if (cursor) this.#cursor = cursor;
    this.#changed(this.#items.show(ids));
    if (news.length || cursor) await store.take(this.#at, user, news, this.#listing ? null : cursor);
    if (news.length) store.announce(user, ids);
    if (items.length) await clearTray(items);
  }

  // -- following

  /** Everything that a connection begins with. */
  async #connect(run) {
    await this.#caller.known();
    await this.#device.ensure().then((done) => this.#subscribed(done));
    await this.#flush();
    await this.#refresh(run);
  }

  #open(signal) {
    const headers = { accept: "text/event-stream", ...(this.#cursor === null ? {} : { "last-event-id": this.#cursor }) };
    return this.#caller.fetch("/v1/me/feed/events", { headers, signal, unsid: this.unsid });
  }

  async #event({ type, data, id }, run) {
    if (type === "change") await this.#take([data], id);
    else if (type === "counts") this.#count(data);
    else if (type === "cursor") {
      this.#listing = false;
      await this.#take([], id);
    } else if (type === "resync") {
      await this.#forget();
      await this.#refresh(run);
    } else if (type === "subscription") {
      if (data.state === "ended" || data.state === "expired") await this.#device.lost(this.unsid);
      this.#subscribeAgain({ again: true, fresh: data.state === "unreachable" });
    } else if (type === "unauthorized") this.#caller.drop();
  }

  #subscribeAgain(how) {
    this.#device.ensure(how).then(
      (done) => {
        this.#subscribed(done);
        if (done.renewed) this.#line.restart();
      },
      () => {}, // no answer: the next connection tries again
    );
  }

  #subscribed({ told, wait }) {
    if (told && (told !== this.#told || told === "renewed")) this.#tell("subscription", told);
    this.#told = told ?? this.#told;
    if (wait === null || !this.#line.running) return;
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(() => this.#subscribeAgain(), wait);
  }

  async #hear({ user, ids, signedOut = false }) {
    if (user !== this.user || user === null) return;
    if (signedOut) {
      this.stop();
      return this.#leave();
    }
    const found = await store.look(this.#at, user, ids);
    if (this.user !== user) return;
    this.#items.take(found.flatMap(({ item }) => item ?? []));
    const changes = found.flatMap(({ change }) => change ?? []);
    this.#changed(this.#items.show(this.#items.wait(changes, ids)));
    if (changes.some(({ doubt }) => !doubt)) this.#flush().catch(() => this.#sendLater());
  }

  #changed(items) {
    if (items.length) this.#tell("change", items);
  }

  #count(counts) {
    this.counts = counts;
    this.#tell("counts", counts);
  }

  #tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #say(status) {
    if (status === this.status) return;
    this.status = status;
    this.#tell("status", status);
  }
}

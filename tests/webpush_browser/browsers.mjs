// Browsers in Node: what the web client and its worker see of one, made of as little as possible, around the real files of the service.
//
// A browser is a store, a tray, a push subscription and a network; its tabs and its worker share them. A tab that is killed neither hears nor
// does anything any more, in the middle of whatever it did. Reads one line of JSON after the other, `{code, args}`, and answers each
// with one: `code` is the body of an async function of `h` (which makes browsers) and `args`.

import { AsyncLocalStorage } from "node:async_hooks";
import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

const web = process.argv[2];
const here = new AsyncLocalStorage();
const network = globalThis.fetch;
const never = new Promise(() => {});

const { Fanout, FanoutError } = await import(pathToFileURL(`${web}/fanout.js`));
const { renewalWait } = await import(pathToFileURL(`${web}/device.js`));
const store = globalThis.fanoutStore;

globalThis.fetch = (url, options) => (here.getStore() ? here.getStore().fetch(url, options) : network(url, options));
for (const name of ["navigator", "Notification", "PushManager", "location", "addEventListener", "removeEventListener"]) {
  Object.defineProperty(globalThis, name, { configurable: true, get: () => here.getStore()?.browser.globals[name] });
}

class Browser {
  constructor(url, addresses = [], permission = "default") {
    this.url = url;
    this.addresses = [...addresses];
    this.memory = store.memory();
    this.tray = [];
    this.held = null; // the browser's push subscription
    this.offline = false;
    this.loses = 0; // answers that are lost from now on, of changes
    this.asked = [];
    this.cuts = new Set();
    this.window = new EventTarget();
    this.permission = new EventTarget();
    this.scripts = {};
    this.pages = [];
    this.locks = new Map();
    const registration = this.#registration();
    const browser = this;
    this.globals = {
      location: { href: `${url}/app/` },
      PushManager: class {},
      Notification: {
        get permission() {
          return browser.permission.state;
        },
        requestPermission: async () => browser.permission.state,
      },
      navigator: {
        permissions: { query: async () => browser.permission },
        locks: { request: (name, work) => browser.#lock(here.getStore(), name, work) },
        serviceWorker: {
          register: async (script) => ((browser.script = script), registration),
          getRegistration: async () => registration,
          getRegistrations: async () => [registration],
        },
      },
      addEventListener: (type, act) => this.window.addEventListener(type, this.#bound(act)),
      removeEventListener: () => {},
    };
    this.permission.state = permission;
    setMaxListeners(0, this.window, this.permission);
    const listen = this.permission.addEventListener.bind(this.permission);
    this.permission.addEventListener = (type, act) => listen(type, this.#bound(act));
  }

  // A tab that dies gives its locks back.
  #lock(tab, name, work) {
    const before = this.locks.get(name) ?? Promise.resolve();
    const mine = before.then(() => (tab.dead ? null : Promise.race([work(), tab.death])));
    this.locks.set(name, mine.catch(() => {}));
    return mine.then((found) => (tab.dead ? never : found));
  }

  // What is done because of an event is done by the tab that listens.
  #bound(act) {
    const tab = here.getStore();
    return (event) => tab?.dead || here.run(tab, act, event);
  }

  #registration() {
    const browser = this;
    const made = (options, data) => {
      const found = {
        endpoint: data.endpoint,
        options: { applicationServerKey: Uint8Array.from(atob(options.applicationServerKey.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)).buffer },
        toJSON: () => data,
        unsubscribe: async () => {
          if (browser.held === found) browser.held = null;
          return true;
        },
      };
      return found;
    };
    return (this.registration = {
      active: new EventTarget(),
      pushManager: {
        getSubscription: async () => browser.held,
        subscribe: async (options) => {
          if (browser.permission.state !== "granted") throw new DOMException("denied", "NotAllowedError");
          if (!browser.addresses.length) throw new DOMException("push service error", "AbortError");
          return (browser.held ??= made(options, JSON.parse(browser.addresses.shift())));
        },
      },
      getNotifications: async ({ tag } = {}) => browser.tray.filter((shown) => tag === undefined || shown.tag === tag),
      showNotification: async (title, options) => {
        browser.tray = browser.tray.filter((shown) => shown.tag !== options.tag);
        const shown = { title, ...options, close: () => (browser.tray = browser.tray.filter((each) => each !== shown)) };
        browser.tray.push(shown);
      },
    });
  }

  allow(state) {
    this.permission.state = state;
    if (state !== "granted") this.held = null;
    this.permission.dispatchEvent(new Event("change"));
  }

  cut(offline = true) {
    this.offline = offline;
    if (offline) for (const cut of this.cuts) cut.abort();
    this.window.dispatchEvent(new Event(offline ? "offline" : "online"));
  }

  tab(options) {
    const tab = new Tab(this);
    here.run(tab, () => (tab.client = new Fanout({ service: this.url, store: tab.store, ...options })));
    for (const type of ["change", "status", "subscription", "user", "unauthorized", "stopped"]) {
      tab.client.addEventListener(type, ({ detail }) => tab.told.push([type, detail]));
    }
    return tab;
  }

  worker(query = "") {
    return new Worker(this, query);
  }
}

class Tab {
  constructor(browser) {
    this.browser = browser;
    this.dead = false;
    this.death = new Promise((done) => (this.die = done));
    this.told = [];
    this.mine = new Set();
    this.store = { persistent: true, run: (work) => (this.dead ? never : browser.memory.run(work)) };
  }

  async fetch(url, { signal, ...options } = {}) {
    if (this.dead) return never;
    const { browser } = this;
    const method = options.method ?? "GET";
    if (browser.offline) throw new TypeError("fetch failed");
    browser.asked.push(`${method} ${String(url).slice(browser.url.length)}`);
    const cut = new AbortController();
    for (const cuts of [browser.cuts, this.mine]) cuts.add(cut);
    const losing = method !== "GET" && browser.loses > 0 && browser.loses--;
    const answer = await network(url, { ...options, signal: AbortSignal.any([cut.signal, ...(signal ? [signal] : [])]) });
    if (this.dead) return never;
    if (losing) throw new TypeError("the answer was lost");
    return answer;
  }

  /** Do this as the tab: `run((client) => client.start())`. */
  run(act) {
    return here.run(this, act, this.client);
  }

  heard(type) {
    return this.told.filter(([name]) => name === type).map(([, detail]) => detail);
  }

  kill() {
    this.dead = true;
    this.die();
    for (const cut of this.mine) cut.abort();
  }
}

class Worker {
  #listeners = {};

  constructor(browser, query) {
    this.browser = browser;
    const tab = (this.tab = { browser, dead: false, death: never, mine: new Set() });
    const self = {
      location: new URL(`${browser.url}/client/worker.js${query}`),
      fanoutStore: { ...store, place: async () => browser.memory },
      fetch: (url, options) => Tab.prototype.fetch.call(tab, url, options),
      addEventListener: (type, act) => (this.#listeners[type] = act),
      importScripts: (url) => vm.runInContext(browser.scripts[url], context),
      registration: browser.registration,
      clients: { matchAll: async () => browser.pages, openWindow: async (url) => (browser.opened = url), claim: async () => {} },
      skipWaiting: async () => {},
      ...{ URL, URLSearchParams, AbortSignal, TypeError, console, setTimeout, clearTimeout, structuredClone, atob, btoa },
    };
    self.self = self;
    const context = vm.createContext(self);
    for (const name of ["store.js", "worker.js"]) vm.runInContext(readFileSync(`${web}/${name}`, "utf8"), context);
  }

  async #dispatch(type, more) {
    const waits = [];
    here.run(this.tab, this.#listeners[type], { ...more, waitUntil: (each) => waits.push(each) });
    await Promise.all(waits);
  }

  push(content) {
    return this.#dispatch("push", { data: { json: () => content } });
  }

  close(tag) {
    const shown = this.browser.tray.find((each) => each.tag === tag);
    shown.close();
    return this.#dispatch("notificationclose", { notification: shown });
  }

  click(tag) {
    const shown = this.browser.tray.find((each) => each.tag === tag);
    return this.#dispatch("notificationclick", { notification: shown });
  }

  sync() {
    return this.#dispatch("sync", { tag: "fanout-unsent" });
  }

  change() {
    this.browser.held = null;
    return this.#dispatch("pushsubscriptionchange", {});
  }
}

/** Wait until it is true; asked again whenever something may have happened. */
async function until(look) {
  for (;;) {
    const found = await look();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 5));
  }
}

const h = { Browser, FanoutError, network, renewalWait, store, until, kept: {} };
const AsyncFunction = (async () => {}).constructor;
for await (const line of createInterface({ input: process.stdin })) {
  const { code, args } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await new AsyncFunction("h", "args", code)(h, args)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.stack ?? String(error) }));
  }
}

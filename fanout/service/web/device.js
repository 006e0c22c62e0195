// This browser as a device of the user's: its UNSID, and the browser's own push subscription behind it.

import "./store.js";
import { passing } from "./caller.js";

const store = globalThis.fanoutStore;
const MINUTE = 60_000;
const HOUR = 3_600_000;

/**
 * Milliseconds to wait before this browser subscribes again by itself; `renewals` says how often it did and when last (null: never). At
 * once the first time of an hour, then a minute, doubled up to an hour: a user with more browsers than she may have would have each of
 * them push another out for ever.
 */
export function renewalWait(renewals, now) {
  if (!renewals || now - renewals.at >= HOUR || now < renewals.at) return 0;
  return Math.max(0, renewals.at + Math.min(HOUR, MINUTE * 2 ** (renewals.count - 1)) - now);
}

export class Device {
  #caller;
  #binding;
  #key;

  constructor(caller, { binding, name, applicationServerKey }) {
    this.#caller = caller;
    this.#binding = binding;
    this.#key = applicationServerKey;
    this.name = name;
    this.unsid = null;
  }

  get #at() {
    return this.#caller.at;
  }

  get #user() {
    return this.#caller.user;
  }

  /** From now on it is a device of this user, the only one whose pushes the browser gets. */
  async enter(at, user) {
    const [name, before] = await store.kept(at, "", "device", "user");
    this.name ??= name ?? (crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""));
    await store.keep(at, "", { device: this.name, user });
    this.unsid = await store.kept(at, user, "unsid");
    if (before !== user) await closeTray((shown) => shown.data?.user !== user);
  }

  async subscribe({ applicationServerKey = this.#key, worker = new URL("worker.js", import.meta.url).href, renderer = null, scope = null, receive = "push" }) {
    if (applicationServerKey !== null && (await Notification.requestPermission()) !== "granted") {
      throw Object.assign(new Error("The user allows no notifications."), { name: "FanoutError", status: 0, code: "denied", reason: "" });
    }
    const script = new URL(worker, location.href);
    if (renderer !== null) script.searchParams.set("renderer", new URL(renderer, location.href).href);
    const wanted = { applicationServerKey, binding: this.#binding, worker: script.href, scope, receive };
    await store.keep(this.#at, "", { user: this.#user });
    return exclusive(async () => {
      const answer = await this.#enter(wanted, applicationServerKey !== null, false);
      await store.keep(this.#at, "", { wanted });
      return answer;
    });
  }

  /**
   * Subscribe again where this browser subscribed once and is not subscribed as it should be: the service knows it no more, the browser's
   * own subscription is another or gone, it was made for another key, notifications are forbidden or allowed again, another user has signed in.
   * `again` renews in any case, `fresh` with a new address. Answers whether it is another device now, the text to show, and after
   * how many milliseconds to ask again (null: not).
   */
  ensure({ again = false, fresh = false } = {}) {
    return exclusive(() => this.#ensure(again, fresh));
  }

  async #ensure(again, fresh) {
    const nothing = { renewed: false, told: null, wait: null };
    const user = this.#user;
    const before = this.unsid;
    const [wanted, current] = await store.kept(this.#at, "", "wanted", "user");
    const [unsid, held, renewals] = await store.kept(this.#at, user, "unsid", "held", "renewals");
    this.unsid = unsid; // another page of this browser may have renewed it
    if (!wanted) return { ...nothing, renewed: unsid !== before };
    const key = wanted.applicationServerKey === null ? null : (this.#key ?? wanted.applicationServerKey);
    const pushes = key !== null && current === user;
    const endpoint = pushes && allowed() ? await endpointFor(key, wanted.scope) : "";
    if (unsid !== null && !again && !fresh && held === endpoint) return { ...nothing, renewed: unsid !== before };
    const wait = renewalWait(renewals, Date.now());
    if (wait > 0) return { renewed: unsid !== before, told: unsid === null ? "ended" : null, wait };
    const counted = { count: renewals && Date.now() - renewals.at < HOUR ? renewals.count + 1 : 1, at: Date.now() };
    await store.keep(this.#at, user, { renewals: counted });
    let told = pushes && endpoint === "" ? "denied" : "renewed";
    try {
      const now = { ...wanted, applicationServerKey: key };
      await this.#enter(now, endpoint !== "", fresh).catch(async (error) => {
        if (endpoint === "" || error.status !== undefined || error instanceof TypeError) throw error;
        told = "ended"; // the browser gives no push subscription now: follow as a device without one
        await this.#enter(now, false, false);
      });
    } catch (error) {
      if (error.status === 401 || error.code === "user") throw error;
      return { ...nothing, told: passing(error) ? null : "ended", wait: Math.max(MINUTE, renewalWait(counted, Date.now())) };
    }
    return { renewed: true, told, wait: told === "ended" ? Math.max(MINUTE, renewalWait(counted, Date.now())) : null };
  }

  async #enter(wanted, push, fresh) {
    const [user, former] = await store.kept(this.#at, "", "user", "unsid");
    const body = { device_id: this.name, receive: wanted.receive };
    let held = "";
    if (push) {
      const registration = await registered(wanted);
      const subscription = await store.pushSubscription(registration, wanted.applicationServerKey, fresh);
      Object.assign(body, { binding: wanted.binding, address: subscription.toJSON() });
      held = subscription.endpoint;
    }
    const mine = user === this.#user;
    const proof = this.unsid ?? (mine && push ? former : null);
    let answer;
    try {
      answer = await this.#caller.call("POST", "/v1/me/subscriptions", { body, headers: proof ? { "x-uns-id": proof } : {} });
    } catch (error) {
      if (error.reason === "address" && push && !fresh) return this.#enter(wanted, push, true); // it was another user's here
      throw error;
    }
    this.unsid = answer.unsid;
    await store.keep(this.#at, this.#user, { unsid: answer.unsid, subscription: answer.id, held });
    if (mine) await store.keep(this.#at, "", { unsid: answer.unsid });
    return answer;
  }

  /** The service does not know this UNSID any more. */
  async lost(unsid) {
    const kept = await store.kept(this.#at, this.#user, "unsid");
    this.unsid = kept === unsid ? null : kept;
    if (kept === unsid) await store.keep(this.#at, this.#user, { unsid: null, held: null });
  }

  /** Tell the service that this device is signed out. */
  async end() {
    const subscription = await store.kept(this.#at, this.#user, "subscription");
    if (subscription === null) return;
    await this.#caller.call("DELETE", `/v1/me/subscriptions/${subscription}`).catch((error) => {
      if (error.status !== 404) throw error;
    });
  }

  /** Nothing of the user stays in the browser's tray, and no push comes. */
  async clear() {
    const user = this.#user;
    await closeTray((shown) => (shown.data?.user ?? user) === user);
    await store.keep(this.#at, user, { unsid: null, subscription: null, held: null, renewals: null });
    this.unsid = null;
    if ((await store.kept(this.#at, "", "user")) !== user) return; // another user has signed in since
    for (const registration of await registrations()) {
      const subscription = await registration.pushManager?.getSubscription().catch(() => null);
      if (subscription) await subscription.unsubscribe().catch(() => false);
    }
    await store.keep(this.#at, "", { user: null, wanted: null, unsid: null });
  }

  /** Tell when notifications are allowed or forbidden. Returns a function that ends it. */
  watch(changed) {
    let status = null;
    globalThis.navigator?.permissions
      ?.query({ name: "notifications" })
      .then((found) => {
        if (status === null) (status = found).addEventListener("change", changed);
      })
      .catch(() => {});
    return () => {
      status?.removeEventListener?.("change", changed);
      status = {};
    };
  }

  /** Have the worker send waiting changes when there is a network, where the browser can do that. */
  async syncLater() {
    for (const registration of await registrations()) await registration.sync?.register("fanout-unsent").catch(() => {});
  }
}

/** Take notifications that need no attention any more out of the tray. */
export async function clearTray(items) {
  const done = new Set(items.filter((item) => item.status === "deleted" || item.read || item.action !== "none").map((item) => item.id));
  if (done.size) await closeTray((shown) => done.has(shown.tag));
}

async function closeTray(which) {
  for (const registration of await registrations()) {
    for (const shown of (await registration.getNotifications?.()) ?? []) if (which(shown)) shown.close();
  }
}

async function registrations() {
  return (await globalThis.navigator?.serviceWorker?.getRegistrations()) ?? [];
}

function allowed() {
  return globalThis.Notification?.permission === "granted" && "PushManager" in globalThis && "serviceWorker" in navigator;
}

/** The address of the browser's subscription for that key, or null where it has to be made. */
async function endpointFor(key, scope) {
  const registration = await navigator.serviceWorker.getRegistration(scope ?? new URL(".", import.meta.url).href);
  const held = await registration?.pushManager.getSubscription();
  return held && store.madeFor(held, key) ? held.endpoint : null;
}

/** The worker's registration, once it is active: `ready` is for a page within its scope only. */
async function registered({ worker, scope }) {
  const registration = await navigator.serviceWorker.register(worker, scope === null ? undefined : { scope });
  const found = registration.installing ?? registration.waiting ?? registration.active;
  await new Promise((done, failed) => {
    const look = () => {
      if (registration.active) done();
      else if (found.state === "redundant") failed(new Error("The service worker could not be installed: look at its script and its renderer."));
    };
    found.addEventListener("statechange", look);
    look();
  });
  return registration;
}

const exclusive = (work) => (globalThis.navigator?.locks ? navigator.locks.request("fanout-device", work) : work());

// The service worker of the fanout service: shows pushes, and takes notifications that were dealt with elsewhere out of the tray.
//
// Register it, or take it into a worker of your own: `importScripts("https://push.example.com/client/worker.js")`. A push that is
// not fanout's is left alone. Browsers want something visible for each push, so content that a push does not hold is
// fetched from the feed, and new items are shown: an item with a title as it is, any other as the app's renderer says. That is a
// classic script of the
// worker's own origin, named as `worker.js?renderer=/render.js`, which defines
//
//   self.fanoutRender = (item) => ({ title: "…", body: "…" });   // or a promise; null shows nothing, undefined leaves it to us
//
// `store.js` goes before this file; the service sends both as one.

(() => {
  const store = self.fanoutStore;
  const named = new URL(self.location.href).searchParams.get("renderer");
  if (named !== null) importScripts(ours(named));

  self.addEventListener("install", () => self.skipWaiting());
  self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

  self.addEventListener("push", (event) => {
    const content = read(event.data);
    if (content) event.waitUntil(received(content));
  });

  self.addEventListener("notificationclick", (event) => {
    const { user, item, url, actions = [] } = event.notification.data ?? {};
    event.notification.close();
    const pressed = actions.find(({ action }) => action === event.action);
    const target = pressed?.url ?? url;
    event.waitUntil(Promise.all([item && want(user, item, { read: true, action: "activated" }), target && show(target)]));
  });

  self.addEventListener("notificationclose", (event) => {
    const { user, item } = event.notification.data ?? {};
    if (item) event.waitUntil(want(user, item, { action: "dismissed" }));
  });

  self.addEventListener("sync", (event) => {
    if (event.tag === "fanout-unsent") event.waitUntil(sendAll());
  });

  self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(subscribeAgain()));

  /** The renderer's address. Throws where it is another origin's, so that the worker is not installed. */
  function ours(name) {
    const url = new URL(name, self.location.href);
    if (url.origin !== self.location.origin || url.protocol !== self.location.protocol) {
      throw new TypeError("The renderer must be a script of the worker's own origin: copy it there.");
    }
    return url.href;
  }

  /** The push's content, or null where it is not ours: ours says its notification's id. */
  function read(data) {
    try {
      const content = data?.json();
      return content?.fanout?.id ? content : null;
    } catch {
      return null;
    }
  }

  // -- showing

  async function received(content) {
    const feed = content.data?.feed;
    const user = await store.kept(await store.place(), "", "user");
    let shown = 0;
    if (content.title) shown += await display(user, feed?.item ?? content.tag ?? content.fanout.id, content, feed?.item);
    if (feed && user !== null) shown += await fetched(user, feed).catch(() => 0);
    if (shown) for (const vague of await self.registration.getNotifications({ tag: "fanout" })) vague.close();
    else if (!(await visible())) await self.registration.showNotification("There is something new", { tag: "fanout", silent: true });
    for (const page of await self.clients.matchAll({ includeUncontrolled: true })) page.postMessage({ fanout: content });
  }

  /** One notification in the tray. The same tag twice is one notification, so a push that arrives again shows nothing new. */
  async function display(user, tag, { title, body, icon, image, actions = [], url, ...more }, item) {
    const before = await self.registration.getNotifications({ tag });
    const known = ["badge", "dir", "lang", "requireInteraction", "vibrate", "timestamp", "renotify"];
    await self.registration.showNotification(title, {
      ...Object.fromEntries(known.filter((name) => name in more && typeof more[name] !== "object").map((name) => [name, more[name]])),
      body: body ?? undefined,
      icon: icon ?? undefined,
      image: image ?? undefined,
      actions: actions.map(({ action, id, title: label }) => ({ action: action ?? id, title: label })),
      tag,
      silent: before.length > 0,
      data: { user, item, url, actions },
    });
    return 1;
  }

  /** Read the changes: show new items, the pushed item too, and close notifications that were dealt with on another device. */
  async function fetched(user, feed) {
    const at = await store.place();
    const cursor = await store.kept(at, user, "cursor");
    const ids = new Set((await changes(at, user, cursor, feed.item)).map((item) => item.id));
    if (feed.item) ids.add(feed.item);
    let shown = 0;
    for (const { id, item, change } of await store.look(at, user, [...ids])) {
      const mine = item ? store.overlaid(item, change) : null;
      const open = mine !== null && !mine.read && mine.action === "none";
      if (open) shown += await displayItem(user, mine);
      else for (const each of await self.registration.getNotifications({ tag: id })) each.close();
    }
    return shown;
  }

  /** The changes since the cursor; where there is none, the item that was pushed or else the newest. It is kept for the pages. */
  async function changes(at, user, cursor, pushed) {
    const items = [];
    try {
      if (!cursor && pushed) items.push(await ask(user, "GET", `/v1/me/feed/${encodeURIComponent(pushed)}`));
      else if (!cursor) items.push(...(await ask(user, "GET", "/v1/me/feed?order=newest&limit=1")).items);
      await store.take(at, user, items);
      for (let more = Boolean(cursor); more; ) {
        const page = await ask(user, "GET", `/v1/me/feed?cursor=${encodeURIComponent(cursor)}&status=any`);
        items.push(...page.items);
        ({ cursor, more } = page);
        await store.take(at, user, page.items, cursor);
      }
    } catch (error) {
      if (!cursor || (error.status !== 410 && error.status !== 400)) throw error;
      await store.forget(at, user); // the service asks to begin anew
      return changes(at, user, null, pushed);
    }
    if (items.length) await store.announce(user, items.map((item) => item.id));
    return items;
  }

  async function displayItem(user, item) {
    const content = item.content ?? {};
    let said;
    try {
      said = await self.fanoutRender?.(item);
    } catch (error) {
      console.error("The renderer of notifications failed:", error);
    }
    if (said === null) return 0;
    const wanted = said ?? content;
    return typeof wanted.title === "string" ? display(user, item.id, { url: content.url, ...wanted }, item.id) : 0;
  }

  async function visible() {
    const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    return pages.some((page) => page.visibilityState === "visible");
  }

  async function show(url) {
    const wanted = new URL(url, self.location.origin).href;
    for (const page of await self.clients.matchAll({ type: "window", includeUncontrolled: true })) {
      if (page.url === wanted) return page.focus();
    }
    return self.clients.openWindow(wanted);
  }

  // -- changes

  /** The user's actions in the tray are kept, and sent when there is a token of hers. */
  async function want(user, item, wanted) {
    const at = await store.place();
    user ??= await store.kept(at, "", "user");
    if (user === null) return;
    await store.want(at, user, item, wanted, null);
    await store.announce(user, [item]); // an open page of hers sends it too, with a token that may be newer
    await send(at, user).catch(() => self.registration.sync?.register("fanout-unsent").catch(() => {}));
  }

  async function sendAll() {
    const at = await store.place();
    for (const user of await store.users(at)) {
      await send(at, user).catch((error) => {
        if (!error.status) throw error; // no network: the browser tries again. A refused token waits for the user.
      });
    }
  }

  function send(at, user) {
    const took = (items) => store.take(at, user, items);
    return store.flush(at, user, (method, path, body, headers) => ask(user, method, path, body, headers), took);
  }

  /** One request with the token of that user, as her device here. */
  async function ask(user, method, path, body, more = {}) {
    const at = await store.place();
    const [service, [bearer, unsid]] = await Promise.all([store.kept(at, "", "service"), store.kept(at, user, "bearer", "unsid")]);
    if (!service || !bearer) throw Object.assign(new Error("There is no token of this user."), { status: 401 });
    const headers = { authorization: `Bearer ${bearer}`, ...more };
    if (unsid && !headers["x-uns-id"]) headers["x-uns-id"] = unsid;
    if (body) headers["content-type"] = "application/json";
    const signal = AbortSignal.timeout(20_000);
    const answer = await fetch(service + path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", signal });
    if (answer.ok) return answer.json();
    const reason = (await answer.json().catch(() => ({}))).error?.innerError?.code;
    if (answer.status === 403 && unsid && ["device", "unsid"].includes(reason)) {
      await store.keep(at, user, { unsid: null, held: null }); // the next page subscribes again
      return ask(user, method, path, body, more);
    }
    throw Object.assign(new Error(`the service answered ${answer.status}`), { status: answer.status });
  }

  /** The browser has taken its subscription away: make another, and tell the service. Where that fails, the next page does it. */
  async function subscribeAgain() {
    const at = await store.place();
    const [user, wanted, name] = await store.kept(at, "", "user", "wanted", "device");
    if (user === null || !wanted?.applicationServerKey) return;
    await store.keep(at, user, { held: null });
    const held = await store.pushSubscription(self.registration, wanted.applicationServerKey);
    const body = { device_id: name, receive: wanted.receive, binding: wanted.binding, address: held.toJSON() };
    const answer = await ask(user, "POST", "/v1/me/subscriptions", body);
    await store.keep(at, user, { unsid: answer.unsid, subscription: answer.id, held: held.endpoint });
    await store.keep(at, "", { unsid: answer.unsid });
  }
})();

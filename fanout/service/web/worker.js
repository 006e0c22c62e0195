// The service worker of the fanout service: shows pushes, and takes notifications that were dealt with elsewhere out of the tray.
//
// Register it, or take it into a worker of your own: `importScripts("https://push.example.com/client/worker.js")`. A push that is
// not fanout's is left alone. Browsers want something visible for each push, so a signal without content is followed by a fetch of
// the feed, and what is new there is shown.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => {
  const content = read(event.data);
  if (content) event.waitUntil(received(content));
});

self.addEventListener("notificationclick", (event) => {
  const { item, url, actions = [] } = event.notification.data ?? {};
  event.notification.close();
  const pressed = actions.find(({ action }) => action === event.action);
  const target = pressed?.url ?? url;
  event.waitUntil(Promise.all([item && change(item, { read: true, action: "activated" }), target && show(target)]));
});

self.addEventListener("notificationclose", (event) => {
  const { item } = event.notification.data ?? {};
  if (item) event.waitUntil(change(item, { action: "dismissed" }));
});

/** The push's content, or null where it is not ours: ours says its notification's id. */
function read(data) {
  try {
    const content = data?.json();
    return content?.fanout?.id ? content : null;
  } catch {
    return null;
  }
}

async function received(content) {
  const feed = content.data?.feed;
  let shown = 0;
  if (content.title) shown += await display(feed?.item ?? content.tag ?? content.fanout.id, content, feed?.item);
  if (feed) shown += await fetchChanges(feed).catch(() => 0);
  if (!shown && !(await visible())) {
    await self.registration.showNotification("There is something new", { tag: "fanout", silent: true });
  }
  for (const page of await self.clients.matchAll({ includeUncontrolled: true })) page.postMessage({ fanout: content });
}

/** One notification in the tray. The same tag twice is one notification, so a push that arrives again shows nothing new. */
async function display(tag, content, item) {
  const before = await self.registration.getNotifications({ tag });
  await self.registration.showNotification(content.title, {
    body: content.body ?? undefined,
    icon: content.icon ?? undefined,
    image: content.image ?? undefined,
    actions: (content.actions ?? []).map(({ action, id, title }) => ({ action: action ?? id, title })),
    tag,
    silent: before.length > 0,
    data: { item, url: content.url, actions: content.actions ?? [] },
  });
  return 1;
}

/** Read what has changed up to the push's cursor: show what is new, and close what was dealt with on another device. */
async function fetchChanges(feed) {
  const cursor = await kept("cursor");
  if (cursor && cursor >= feed.cursor) return 0;
  let from = cursor;
  let shown = 0;
  for (let more = true; more; ) {
    const query = from ? `?cursor=${encodeURIComponent(from)}&status=any` : "?order=newest&limit=20";
    const page = await ask("GET", `/v1/me/feed${query}`);
    for (const item of page.items) {
      const open = item.status === "active" && !item.read && item.action === "none";
      if (open && item.content?.title && item.id !== feed.item) shown += await display(item.id, item.content, item.id);
      if (!open) for (const each of await self.registration.getNotifications({ tag: item.id })) each.close();
    }
    more = page.more && Boolean(from);
    from = page.cursor;
  }
  if (cursor) await keep({ cursor: from });
  return shown;
}

async function change(item, body) {
  await ask("PATCH", `/v1/me/feed/${encodeURIComponent(item)}`, body).catch(() => null); // the next page load says it again
}

async function ask(method, path, body) {
  const [service, bearer, unsid] = await Promise.all(["service", "bearer", "unsid"].map(kept));
  if (!service || !bearer) throw new Error("nobody is signed in");
  const headers = { authorization: `Bearer ${bearer}` };
  if (unsid) headers["x-uns-id"] = unsid;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(service + path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
  return answer.json();
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

// The same small store as the page's module has: a classic script cannot import one.

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

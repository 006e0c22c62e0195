// The service worker: shows what fanout sends. The payload's form is described in the README of fanout_webpush.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("push", (event) => event.waitUntil(received(event.data)));

async function received(data) {
  let content = {};
  try {
    content = data ? data.json() : {};
  } catch {
    content = { body: data.text() };
  }
  // Browsers withdraw the permission from a page whose pushes show nothing, so something is shown for raw ones too.
  const title = content.title ?? "fanout";
  const options = {
    body: content.body ?? (content.title ? undefined : "Something new has arrived."),
    icon: content.icon,
    image: content.image,
    tag: content.tag,
    renotify: Boolean(content.tag),
    silent: content.silent,
    requireInteraction: content.requireInteraction,
    actions: (content.actions ?? []).map(({ action, title }) => ({ action, title })),
    data: content,
  };
  if (content.badge !== undefined) await navigator.setAppBadge?.(content.badge);
  await self.registration.showNotification(title, options);
  for (const client of await self.clients.matchAll({ includeUncontrolled: true })) client.postMessage({ title, content });
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const content = event.notification.data ?? {};
  const pressed = (content.actions ?? []).find(({ action }) => action === event.action);
  event.waitUntil(open(pressed?.url ?? content.url ?? "/"));
});

async function open(url) {
  const wanted = new URL(url, self.location.origin).href;
  for (const client of await self.clients.matchAll({ type: "window", includeUncontrolled: true }))
    if (client.url === wanted) return client.focus();
  return self.clients.openWindow(wanted);
}

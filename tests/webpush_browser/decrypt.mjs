// RFC 8291 and RFC 8188 as a browser does it, with WebCrypto alone: an implementation that shares nothing with ours.

const encoder = new TextEncoder();
const join = (...parts) => {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
};
const toBase64 = (raw) => btoa(Array.from(raw, (byte) => String.fromCharCode(byte)).join(""));
const toUrl = (raw) => toBase64(raw).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

async function hkdf(salt, material, info, size) {
  const key = await crypto.subtle.importKey("raw", material, "HKDF", false, ["deriveBits"]);
  const bits = await crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, 8 * size);
  return new Uint8Array(bits);
}

// What a browser makes when a page subscribes; the private key cannot be taken out of it.
export async function subscriber() {
  const pair = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
  const point = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const auth = crypto.getRandomValues(new Uint8Array(16));
  return { pair, point, auth, keys: { p256dh: toUrl(point), auth: toUrl(auth) } };
}

// The plaintext of a body (both base64). Throws where a browser would throw the message away.
export async function decrypt({ pair, point, auth }, body) {
  const raw = fromBase64(body);
  const salt = raw.slice(0, 16);
  const size = new DataView(raw.buffer).getUint32(16);
  const sender = raw.slice(21, 21 + raw[20]);
  const record = raw.slice(21 + raw[20]);
  if (record.length > size) throw new Error("more than one record");
  const theirs = await crypto.subtle.importKey("raw", sender, { name: "ECDH", namedCurve: "P-256" }, false, []);
  const shared = new Uint8Array(await crypto.subtle.deriveBits({ name: "ECDH", public: theirs }, pair.privateKey, 256));
  const material = await hkdf(auth, shared, join(encoder.encode("WebPush: info\0"), point, sender), 32);
  const cek = await hkdf(salt, material, encoder.encode("Content-Encoding: aes128gcm\0"), 16);
  const nonce = await hkdf(salt, material, encoder.encode("Content-Encoding: nonce\0"), 12);
  const key = await crypto.subtle.importKey("raw", cek, "AES-GCM", false, ["decrypt"]);
  const padded = new Uint8Array(await crypto.subtle.decrypt({ name: "AES-GCM", iv: nonce }, key, record));
  let end = padded.length - 1;
  while (end >= 0 && padded[end] === 0) end -= 1;
  if (padded[end] !== 2) throw new Error("the last record does not end with 2");
  return toBase64(padded.slice(0, end));
}

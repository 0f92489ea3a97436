/** The rest of a URI after its scheme: the characters of RFC 3986, with at most one `#`. */
const uriRest = /^[\w.~!$&'()*+,;=:@/?%-]*(?:#[\w.~!$&'()*+,;=:@/?%-]*)?$/

/** A percent sign that does not start an escape. */
const straySign = /%(?![0-9a-f]{2})/i

const scheme = /^[a-z][a-z0-9+.-]*:/i

/** `//authority`: user, host or IP literal, port. */
const authority =
  /^\/\/(?:[\w.~!$&'()*+,;=:%-]*@)?(?:\[[0-9a-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?(?=[/?#]|$)/i

/** Whether a text is a URI, such as `https://acme.example/billing` or `urn:acme:billing`. */
function isUri(text: string): boolean {
  const found = scheme.exec(text)
  return found !== null && isUriRest(text.slice(found[0].length))
}

function isUriRest(rest: string): boolean {
  if (straySign.test(rest)) return false
  if (!rest.startsWith('//')) return uriRest.test(rest)
  const found = authority.exec(rest)
  return found !== null && uriRest.test(rest.slice(found[0].length))
}

/** Whether a text is a URI, or a relative reference such as `/billing` or `payment-service`. Linear in its length. */
export function isUriReference(text: string): boolean {
  if (isUri(text)) return true
  // The first segment of a relative reference has no colon, because that would make it a scheme.
  return !/^[^/?#]*:/.test(text) && isUriRest(text)
}

/**
 * Converts a name to a URI-reference. A URI is kept, and so is a name made of characters that a path may contain.
 * Anything else is percent-encoded, including percent signs, so that decoding always returns the original name.
 */
export function toUriReference(name: string): string {
  if (isUri(name) || (/^[\w.~!$&'()*+,;=@/-]+$/.test(name) && !name.startsWith('//'))) return name
  return encodeURIComponent(name)
}

/** The rest of a URI behind its scheme: the characters of RFC 3986, at most one `#` among them. */
const uriRest = /^[\w.~!$&'()*+,;=:@/?%-]*(?:#[\w.~!$&'()*+,;=:@/?%-]*)?$/

/** A percent sign that encodes nothing. */
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

/** Whether a text is a URI, or a relative reference, such as `/billing` or `payment-service`. Linear in its length. */
export function isUriReference(text: string): boolean {
  if (isUri(text)) return true
  // The first segment of a relative one has no colon: it would be a scheme.
  return !/^[^/?#]*:/.test(text) && isUriRest(text)
}

/**
 * A name as a URI-reference: a URI stays as it is, and so does a name of the characters that a path may have. Anything
 * else is percent-encoded, a percent sign too, so that decoding what is no URI always gives the name.
 */
export function toUriReference(name: string): string {
  if (isUri(name) || (/^[\w.~!$&'()*+,;=@/-]+$/.test(name) && !name.startsWith('//'))) return name
  return encodeURIComponent(name)
}

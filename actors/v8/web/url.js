// URL and URLSearchParams: https://url.spec.whatwg.org, with how the console shows them.
const shownAs = (kind, describe) => {
  Object.defineProperty(kind.prototype, Symbol.for("nodejs.util.inspect.custom"), {
    value(depth, options, inspect) {
      return depth < 0 ? `[${kind.name}]` : `${kind.name} ${inspect(describe(this))}`;
    },
    configurable: true,
  });
};

export default () => {
  require("core-js/web/url");
  require("core-js/web/url-search-params");
  const { URL, URLSearchParams } = globalThis;
  const fields = ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "searchParams", "hash"];
  shownAs(URL, (url) => Object.fromEntries(fields.map((name) => [name, url[name]])));
  shownAs(URLSearchParams, (params) => Object.fromEntries(params));
  return { URL, URLSearchParams };
};

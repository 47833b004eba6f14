// URL and URLSearchParams: https://url.spec.whatwg.org
export default () => {
  require("core-js/web/url");
  require("core-js/web/url-search-params");
  return { URL: globalThis.URL, URLSearchParams: globalThis.URLSearchParams };
};

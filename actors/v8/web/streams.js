// Streams: https://streams.spec.whatwg.org
export default () => require("web-streams-polyfill");

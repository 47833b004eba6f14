// Without a grant, no request leaves, whatever it is called.
// ENDS: denied
const urls = ["http://127.0.0.1/", "http://localhost:80/", "http://169.254.169.254/", "http://[::1]/", "file:///etc/passwd", "https://example.com/", "data:,x", "ftp://x/"];
(async () => {
  const said = [];
  for (const url of urls) {
    try {
      said.push(`ESCAPED ${(await fetch(url)).status}`);
    } catch (error) {
      said.push("DENIED");
    }
  }
  for (const name of ["WebSocket", "XMLHttpRequest", "EventSource", "RTCPeerConnection"]) if (name in globalThis) said.push(`ESCAPED ${name}`);
  return [...new Set(said)].join("\n");
})();

// The token comes in the fragment of the address, which no browser sends to a server.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  for (const line of document.querySelectorAll("pre")) {
    line.textContent = line.textContent.replaceAll("$TOKEN", token);
  }
  document.getElementById("token-hint").textContent = "These lines carry your token: do not pass them on.";
}

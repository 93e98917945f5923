// The line that turns to "connected" by a real client's call, in the words of the page.
const status = document.getElementById("status");
const words = async () => {
  const page = await (await fetch(location.pathname)).text();
  const fresh = new DOMParser().parseFromString(page, "text/html");
  return fresh.getElementById("status").textContent;
};
const look = async () => {
  const answer = await fetch(`/portal/connect/status?since=${status.dataset.since}`);
  const { connected } = answer.ok ? await answer.json() : {};
  if (!connected) return setTimeout(look, 1000);
  status.textContent = await words();
  status.classList.add("connected");
};
look();

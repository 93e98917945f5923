// The line that turns to "connected" by a real client's call.
const status = document.getElementById("status");
const look = async () => {
  const answer = await fetch(`/portal/connect/status?since=${status.dataset.since}`);
  const { connected, text } = answer.ok ? await answer.json() : {};
  if (!connected) return setTimeout(look, 1000);
  status.textContent = text;
  status.classList.add("connected");
};
look();

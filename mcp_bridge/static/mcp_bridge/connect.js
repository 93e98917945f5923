// Copy buttons, and the line that turns to "connected" by a real client's call.
const status = document.getElementById("status");
for (const code of document.querySelectorAll("pre > code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = status.dataset.copy;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = status.dataset.copied;
  });
  code.parentElement.after(button);
}

const look = async () => {
  const answer = await fetch(`/portal/connect/status?since=${status.dataset.since}`);
  const { connected, what } = answer.ok ? await answer.json() : {};
  if (!connected) return setTimeout(look, 1000);
  status.textContent = `${status.dataset.connected} ${what}`;
  status.classList.add("connected");
};
look();

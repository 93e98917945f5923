// Copy buttons, and the line that turns to "connected" by a real client's call.
for (const code of document.querySelectorAll("pre > code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  });
  code.parentElement.after(button);
}

const status = document.getElementById("status");
const look = async () => {
  const answer = await fetch(`/portal/connect/status?since=${status.dataset.since}`);
  const { connected, what } = answer.ok ? await answer.json() : {};
  if (connected) status.textContent = `${status.dataset.connected} ${what}`;
  else setTimeout(look, 1000);
};
look();

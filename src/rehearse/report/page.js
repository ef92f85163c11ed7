// Shows the numbers below the pointer. Without it the page has everything but these.
const tip = document.getElementById("tip");
for (const svg of document.querySelectorAll("svg[data-counts]")) {
  const { from, to, step } = Object.fromEntries(["from", "to", "step"].map((key) => [key, Number(svg.dataset[key])]));
  const counts = JSON.parse(svg.dataset.counts);
  const failures = JSON.parse(svg.dataset.failures);
  const cursor = svg.querySelector(".cursor");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const at = from + part * (to - from);
    const lines = [`${at.toFixed(1)} s: ${counts[Math.min(counts.length - 1, Math.round((at - from) / step))]} in flight`];
    const causes = new Map();
    for (const [when, cause] of failures) {
      if (Math.abs(when - at) < (to - from) / 160) causes.set(cause, (causes.get(cause) ?? 0) + 1);
    }
    for (const [cause, count] of causes) lines.push(`${count} lost: ${cause}`);
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 16}px`;
    cursor.setAttribute("x1", part * 1000);
    cursor.setAttribute("x2", part * 1000);
    cursor.style.visibility = "visible";
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cursor.style.visibility = "hidden";
  });
}

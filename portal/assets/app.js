// Live pages, copy buttons, theme. Every page works without this file.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = localStorage.getItem("theme");
  if (stored) root.dataset.theme = stored;

  const toast = (text) => {
    const box = document.querySelector(".toast");
    box.textContent = text;
    box.classList.add("show");
    setTimeout(() => box.classList.remove("show"), 1800);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.theme !== undefined) {
      const dark = root.dataset.theme
        ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
    }
    if (button.dataset.copy !== undefined) {
      const text = document.getElementById(button.dataset.copy).textContent;
      navigator.clipboard.writeText(text.trim()).then(() => toast("Copied"));
    }
  });

  // A form is sent once.
  document.addEventListener("submit", (event) => {
    const button = event.target.querySelector("button[type=submit], button:not([type])");
    if (button) setTimeout(() => { button.disabled = true; }, 0);
  });
  window.addEventListener("pageshow", () => {
    document.querySelectorAll("button[disabled]").forEach((button) => { button.disabled = false; });
  });

  // Regions that somebody types in wait until the focus has left them.
  const waiting = new Map();
  const replace = (region, html) => {
    const active = document.activeElement;
    if (region.contains(active) && active.matches("input, select")) {
      waiting.set(region, html);
      return;
    }
    waiting.delete(region);
    const open = [...region.querySelectorAll("details[open][id]")].map((d) => d.id);
    region.innerHTML = html;
    open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  };
  document.addEventListener("focusout", () => setTimeout(() => {
    for (const [region, html] of [...waiting]) replace(region, html);
  }, 0));

  const live = document.querySelector("[data-live]");
  if (live) {
    const source = new EventSource(live.dataset.live);
    source.addEventListener("regions", (event) => {
      for (const [name, html] of Object.entries(JSON.parse(event.data))) {
        const region = document.getElementById(`region-${name}`);
        if (region) replace(region, html);
      }
    });
    source.addEventListener("gone", () => { source.close(); location.href = "/clusters"; });
  }

  // Relative times stay true while the page is open.
  const words = (ms) => {
    const s = Math.max(0, Math.round((Date.now() - ms) / 1000));
    if (s < 5) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  const tick = () => document.querySelectorAll("time[data-ms]").forEach((time) => {
    const ms = Number(time.dataset.ms);
    time.textContent = words(ms);
    time.title = new Date(ms).toLocaleString();
  });
  tick();
  setInterval(tick, 1000);
})();

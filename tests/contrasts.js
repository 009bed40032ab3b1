// Texts in sight whose contrast is below 4.5 (3 for large ones), each with its contrast.
const number = (text) => (text.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
const over = (top, below) => {
  const alpha = top[3] ?? 1;
  return [0, 1, 2].map((at) => alpha * top[at] + (1 - alpha) * below[at]);
};
const light = (colour) => {
  const [r, g, b] = colour.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const above = (node) => (node ? [...above(node.parentElement), node] : []);
const found = new Set();
for (const node of document.body.querySelectorAll("*")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  const box = node.getBoundingClientRect();
  if (!own || !box.width || !box.height || node.closest("option, :disabled")) continue;
  let ground = [255, 255, 255];
  let shade = 1;
  for (const part of above(node)) {
    const style = getComputedStyle(part);
    ground = over(number(style.backgroundColor), ground);
    shade *= Number(style.opacity);
  }
  const style = getComputedStyle(node);
  const ink = over([...number(node.namespaceURI.endsWith("svg") ? style.fill : style.color).slice(0, 3), shade], ground);
  const [dark, bright] = [light(ink), light(ground)].sort((a, b) => a - b);
  const contrast = (bright + 0.05) / (dark + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  if (contrast < (large ? 3 : 4.5)) found.add(`${node.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
}
return [...found];

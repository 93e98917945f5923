// A copy button after each element with data-copy, which holds the button's text. It
// copies data-value, or else the text of the element.
'use strict';
const copyText = async function (text) {
    try {
        await navigator.clipboard.writeText(text);
    } catch {
        // Without https a browser has no clipboard.
        const box = document.createElement('textarea');
        box.value = text;
        document.body.append(box);
        box.select();
        document.execCommand('copy');
        box.remove();
    }
};
for (const element of document.querySelectorAll('[data-copy]')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'copy';
    button.textContent = element.dataset.copy;
    button.addEventListener('click', async function () {
        await copyText(element.dataset.value ?? element.textContent);
        button.textContent = element.dataset.copied;
    });
    (element.closest('pre') || element).after(button);
}

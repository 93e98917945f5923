// Opens and closes the groups of the navigation; on a phone, the navigation itself.
'use strict';
const setOpen = function (button, open) {
    button.setAttribute('aria-expanded', String(open));
    if (button.id !== 'to-menu') {
        document.getElementById(button.getAttribute('aria-controls')).hidden = !open;
    }
};
const isOpen = function (button) { return button.getAttribute('aria-expanded') === 'true'; };

const menuButton = document.getElementById('to-menu');
for (const button of document.querySelectorAll('#nav-sidebar button[aria-controls], #to-menu')) {
    button.addEventListener('click', function () { setOpen(button, !isOpen(button)); });
}
document.addEventListener('keydown', function (event) {
    if (event.key === 'Escape' && menuButton !== null && isOpen(menuButton)) {
        setOpen(menuButton, false);
        menuButton.focus();
    }
});

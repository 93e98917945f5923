// Mends what Django's own widgets leave: a name on an element without a role.
'use strict';
window.addEventListener('load', function () {
    for (const icon of document.querySelectorAll('span.help-tooltip[aria-label]')) {
        icon.setAttribute('role', 'img');
    }
});

// Mends what Django's own widgets leave (a name on an element without a role), and
// closes a filter that was opened when one looks elsewhere.
'use strict';
window.addEventListener('load', function () {
    for (const icon of document.querySelectorAll('span.help-tooltip[aria-label]')) {
        icon.setAttribute('role', 'img');
    }
});

const closeFilters = function (but) {
    for (const filter of document.querySelectorAll('#changelist-filter details[open]')) {
        if (!filter.contains(but)) { filter.open = false; }
    }
};
document.addEventListener('click', function (event) { closeFilters(event.target); });
document.addEventListener('keydown', function (event) {
    if (event.key === 'Escape') { closeFilters(null); }
});

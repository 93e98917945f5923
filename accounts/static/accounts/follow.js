// Follow live: adds new rows to the top of the audit list while the button is pressed.
// It fetches the same list with the same filters, pauses in a hidden tab, and ends by
// itself. Without it the page is a plain list.
'use strict';
const followed = document.getElementById('follow');
if (followed) {
    const EVERY = 2000, ANNOUNCE_EVERY = 10000, END_AFTER = 30 * 60000;
    const MOST_ROWS = 200, OVERLAP = 200, MOST_FAILURES = 5;
    const button = followed.querySelector('button');
    const status = followed.querySelector('[role=status]');
    const seen = new Set();
    let after = Number(followed.dataset.after);
    let timer = 0, began = 0, announced = 0, unannounced = 0, failures = 0;

    const idOf = function (row) {
        const link = row.querySelector('th a, td a');
        const found = link && /\/auditevent\/(\d+)\//.exec(link.getAttribute('href'));
        return found ? Number(found[1]) : 0;
    };
    const rowsOf = function (page) {
        return [...page.querySelectorAll('#result_list tbody tr')];
    };
    const stop = function (text) {
        clearTimeout(timer);
        button.setAttribute('aria-pressed', 'false');
        status.textContent = text;
    };
    const announce = function (count) {
        unannounced += count;
        if (unannounced && Date.now() - announced >= ANNOUNCE_EVERY) {
            status.textContent = followed.dataset.added.replace('0', unannounced);
            announced = Date.now();
            unannounced = 0;
        }
    };
    const show = function (page) {
        const fresh = rowsOf(page).filter(function (row) { return !seen.has(idOf(row)); });
        for (const row of fresh) { seen.add(idOf(row)); }
        after = Math.max(after, ...fresh.map(idOf));
        const body = document.querySelector('#result_list tbody');
        if (body) {
            body.prepend(...fresh);
            for (const row of rowsOf(document).slice(MOST_ROWS)) { row.remove(); }
        } else if (fresh.length) {
            document.getElementById('changelist-form').prepend(page.querySelector('.results'));
            document.querySelector('.empty-note')?.remove();
        }
        announce(fresh.length);
    };
    const load = async function () {
        const query = new URLSearchParams(location.search);
        query.set('after', Math.max(0, after - OVERLAP));
        const answer = await fetch(followed.dataset.url + '?' + query, {redirect: 'error'});
        if (answer.status >= 400 && answer.status < 500) { failures = MOST_FAILURES; }
        if (!answer.ok) { throw new Error(answer.status); }
        return new DOMParser().parseFromString(await answer.text(), 'text/html');
    };
    const tick = async function () {
        if (Date.now() - began > END_AFTER) { stop(followed.dataset.ended); return; }
        if (!document.hidden) {
            try {
                show(await load());
                failures = 0;
            } catch {
                failures += 1;
            }
        }
        if (failures >= MOST_FAILURES) {
            stop(followed.dataset.failed);
        } else if (button.getAttribute('aria-pressed') === 'true') {
            timer = setTimeout(tick, EVERY);
        }
    };
    for (const row of rowsOf(document)) { seen.add(idOf(row)); }
    button.addEventListener('click', function () {
        if (button.getAttribute('aria-pressed') === 'true') { stop(''); return; }
        button.setAttribute('aria-pressed', 'true');
        status.textContent = followed.dataset.following;
        began = announced = Date.now();
        failures = 0;
        timer = setTimeout(tick, 0);
    });
    followed.hidden = false;
}

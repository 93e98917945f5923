// The search of the admin: Ctrl-K, Cmd-K, "/" and the box in the header open it.
// Without this script the box is a form that leads to the page of the search.
'use strict';
if (document.getElementById('search') !== null) {
    const DELAY = 150; // Milliseconds after the last key.
    const NO_TEXT = ['button', 'checkbox', 'radio', 'range', 'submit', 'reset', 'file', 'color', 'image'];
    const dialog = document.getElementById('search');
    const form = dialog.querySelector('form');
    const box = form.elements.q;
    const list = document.getElementById('search-results');
    const note = document.getElementById('search-note');
    let timer = 0;
    let request = null;
    let shown = null; // The text whose results are shown.
    let openFirst = false; // Enter was pressed before the results came.

    const options = function () { return [...list.querySelectorAll('[role=option]')]; };
    const word = function () { return box.value.trim().replace(/\s+/g, ' '); };

    const choose = function (option) {
        for (const other of options()) {
            other.setAttribute('aria-selected', String(other === option));
        }
        if (option) {
            box.setAttribute('aria-activedescendant', option.id);
            option.scrollIntoView({block: 'nearest'});
        } else {
            box.removeAttribute('aria-activedescendant');
        }
    };

    const element = function (name, attributes, ...children) {
        const made = document.createElement(name);
        for (const [key, value] of Object.entries(attributes)) { made.setAttribute(key, value); }
        made.append(...children);
        return made;
    };

    const optionOf = function (result, index, further) {
        const attributes = {role: 'option', href: result.url, tabindex: '-1', id: `search-option-${index}`};
        const made = element('a', {...attributes, class: further ? 'further' : ''}, result.title);
        if (result.detail) { made.append(' ', element('small', {}, result.detail)); }
        return made;
    };

    const groupOf = function (group, number, first) {
        const heading = element('div', {class: 'kind', id: `search-kind-${number}`}, group.label);
        const made = element('div', {role: 'group', 'aria-labelledby': heading.id}, heading);
        for (const result of group.results) {
            made.append(optionOf(result, first + made.childElementCount, false));
            for (const link of result.links) {
                const title = `${result.title}: ${link.title}`;
                made.append(optionOf({...link, title}, first + made.childElementCount, true));
            }
        }
        return made;
    };

    const show = function (answer, text) {
        shown = text;
        list.replaceChildren();
        for (const [number, group] of answer.groups.entries()) {
            list.append(groupOf(group, number, options().length));
        }
        const some = answer.groups.length > 0;
        list.hidden = !some;
        box.setAttribute('aria-expanded', String(some));
        note.textContent = answer.message;
        choose(options()[0]);
        if (openFirst) { follow(); }
    };

    const ask = async function () {
        clearTimeout(timer);
        if (request !== null) { request.abort(); }
        request = new AbortController();
        const signal = request.signal;
        const text = word();
        const url = `${form.action}?${new URLSearchParams({q: text, format: 'json'})}`;
        try {
            const answer = await fetch(url, {signal, headers: {Accept: 'application/json'}});
            show(await answer.json(), text);
        } catch {
            if (!signal.aborted) {
                // The session ended, or the server is away: the page says which.
                show({groups: [], message: dialog.dataset.failed}, text);
            }
        }
    };

    const follow = function () {
        openFirst = false;
        const chosen = list.querySelector('[aria-selected=true]');
        if (chosen !== null) {
            dialog.close();
            location.href = chosen.href;
        } else if (word() !== '') {
            form.submit();
        }
    };

    const open = function () {
        if (!dialog.open) {
            openFirst = false;
            dialog.showModal();
            box.select();
            ask();
        }
    };

    form.addEventListener('submit', function (event) {
        event.preventDefault();
        if (shown === word()) {
            follow();
        } else {
            openFirst = true;
            ask();
        }
    });
    box.addEventListener('input', function () {
        openFirst = false;
        clearTimeout(timer);
        timer = setTimeout(ask, DELAY);
    });
    box.addEventListener('keydown', function (event) {
        const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
        const all = options();
        if (step === undefined || event.isComposing || all.length === 0) { return; }
        event.preventDefault();
        const now = all.findIndex(function (one) { return one.getAttribute('aria-selected') === 'true'; });
        choose(all[(now + step + all.length) % all.length]);
    });
    dialog.addEventListener('click', function (event) {
        if (event.target === dialog) { dialog.close(); }
    });
    document.getElementById('to-search').addEventListener('click', open);

    const typing = function (target) {
        const field = target instanceof HTMLInputElement && !NO_TEXT.includes(target.type);
        return field || target.isContentEditable || target.matches('textarea, select');
    };
    document.addEventListener('keydown', function (event) {
        if (event.isComposing || event.altKey) { return; }
        const letter = (event.ctrlKey || event.metaKey) && !event.shiftKey && (event.key === 'k' || event.code === 'KeyK');
        const slash = event.key === '/' && !event.ctrlKey && !event.metaKey && !typing(event.target);
        if (letter || (slash && !dialog.open)) {
            event.preventDefault();
            open();
        }
    });
}

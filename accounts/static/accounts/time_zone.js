// Tells the server the browser's time zone, so that pages show and read local times.
'use strict';
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone && !document.cookie.split('; ').includes('portico_time_zone=' + zone)) {
    const secure = location.protocol === 'https:' ? '; Secure' : '';
    document.cookie = 'portico_time_zone=' + zone + '; Path=/; Max-Age=31536000; SameSite=Lax' + secure;
}

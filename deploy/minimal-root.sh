#!/bin/sh
# minimal-root.sh WEIR DIRECTORY: lays out a root directory that holds weir, what it needs to run, and nothing else.
# For the minimal image; run where RUN_PACKAGES are installed.
set -eu

weir=$1 root=$2
mkdir -p "$root/etc/ssl/certs" "$root/etc/weir" "$root/usr/bin" "$root/usr/lib/ssl" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$weir" "$root/usr/bin/weir"

# libwebsockets loads its event loop by name, so that ldd does not know of it. Host names are looked up by libc itself;
# the two small libraries beside it are there for a libc that still loads them.
loaded=$(find /usr/lib -name 'libwebsockets-evlib_uv.so' -o -name 'libnss_files.so.2' -o -name 'libnss_dns.so.2')
# shellcheck disable=SC2086 # a list
for file in $loaded $(ldd "$weir" $loaded | grep -o '/[^ :]*\.so[^ :)]*' | sort -u); do
    [ -e "$root$file" ] || cp --parents -L "$file" "$root"
done

# Who is asked for names: /etc/hosts, then the servers of resolv.conf, both of which the container engine provides.
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/:/sbin/nologin\nweir:x:65532:65532::/nonexistent:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nweir:x:65532:\n' >"$root/etc/group"

# The authorities that https:// backends are checked against, where OpenSSL looks for them.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp -L /etc/ssl/openssl.cnf "$root/etc/ssl/"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
ln -s /etc/ssl/openssl.cnf "$root/usr/lib/ssl/openssl.cnf"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"

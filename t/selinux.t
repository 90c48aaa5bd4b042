#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# selinux.t - SELinux labels: what libvirt says of them, and what vfund does with them
#
# There is no SELinux here, so a file takes the place of the one that the kernel would read, and a kernel without SELinux
# takes a label of a file as it is. What a real one says to all this is in vfun-domain(1).
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root', 'libvirt', 'qemu', 'kernel');

my $program = tmp('labels');
my $r = run(['gcc', qw(-O1 -g -std=gnu11 -D_GNU_SOURCE -o), $program, 't/lib/labels.c', map { "roles/domain/$_.c" } qw(identity lxml)]);
is($r->{status}, 0, 'what reads labels') or diag($r->{err});

# The policy's files, in place of the host's.
my $etc = tmp('etc');
mkdir $_ for $etc, "$etc/selinux", map { "$etc/selinux/test$_" } '', '/contexts';
spew("$etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=test\n");
my $image = "$etc/selinux/test/contexts/virtual_image_context";
my ($kvm, $tcg) = map { "system_u:system_r:${_}_t:s0" } qw(svirt svirt_tcg);
my $secmodel = "<secmodel><model>selinux</model><doi>0</doi><baselabel type='kvm'>$kvm</baselabel><baselabel type='qemu'>$tcg</baselabel></secmodel>";
my $dac = "<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+107:+108</baselabel><baselabel type='qemu'>+107:+108</baselabel></secmodel>";

sub labels {
	my ($models, $type, $seclabel) = @_;
	my $caps = spew(tmp('capabilities'), "<capabilities><host>$models</host></capabilities>");
	my $domain = spew(tmp('domain'), "<domain type='$type'><name>web</name>$seclabel</domain>");
	return run(['unshare', '-m', '--propagation', 'private', 'sh', '-c', 'mount --bind "$0" /etc && exec "$@"', $etc, $program, $caps, $domain])->{out};
}

my $own = "<seclabel type='static' model='selinux' relabel='yes'><label>u:r:own_t:s0:c1,c2</label></seclabel>";
my $dac_own = "<seclabel type='static' model='dac'><label>+1:+1</label></seclabel>";
spew($image, "system_u:object_r:svirt_image_t:s0\nsystem_u:object_r:virt_content_t:s0\n");
my $file = 'system_u:object_r:svirt_image_t:s0';
for (['kvm', "$secmodel$dac", 'kvm', '', $kvm, $file], ['emulated', "$secmodel$dac", 'qemu', '', $tcg, $file],
	['a host without SELinux', $dac, 'kvm', '', '', ''],
	['a label for a user only', "$secmodel$dac", 'kvm', $dac_own, $kvm, $file],
	['a label of its own', "$secmodel$dac", 'kvm', "$dac_own$own", 'u:r:own_t:s0:c1,c2', "$file:c1,c2"],
	['a type of its own', "$secmodel$dac", 'kvm', "<seclabel type='dynamic' model='selinux'><baselabel>u:r:base_t:s0</baselabel></seclabel>", 'u:r:base_t:s0', $file],
	['one that runs', "$secmodel$dac", 'kvm', "<seclabel type='dynamic' model='selinux'><label>$kvm:c1,c2</label><imagelabel>i</imagelabel></seclabel>", $kvm, $file],
	['none', "$secmodel$dac", 'kvm', "<seclabel type='none' model='selinux'/>", '', ''],
	['one that is too long', "$secmodel$dac", 'kvm', $own =~ s/c2/'c2' . ',c3' x 100/er, '', ''],
	['none at all', "$secmodel$dac", 'kvm', "<seclabel type='none'/>", '', '']) {
	my ($name, $models, $type, $seclabel, @want) = @$_;
	is(labels($models, $type, $seclabel), join("\n", '107 108', @want, ''), $name);
}
unlink $image;
is(labels("$secmodel$dac", 'kvm', ''), "107 108\n$kvm\n\n", 'a policy that has no label for images');

# vfund, with domains that it remembers: messages of virtd.h. Its libvirt doesn't answer, so that nothing else is said.
sub message {
	my %m = (kind => 2, name => '', uuid => '', ivshmem => 0, uid => 64055, text => '', label => '', file => '', @_);
	return pack 'V4 Q2 V2 a40 a64 a512 a256 a256 a256', $m{kind}, 0, 0, 0, 0, @m{qw(ivshmem uid uid uuid name)}, '', @m{qw(text label file)};
}

my %uuid = (web => '11111111-2222-3333-4444-555555555555', plain => '21111111-2222-3333-4444-555555555555');
my $sockcreate = spew(tmp('sockcreate'), '');
my $wrapper = spew(tmp('vfun'), <<"END");
#!/bin/sh
exec unshare -m --propagation private sh -c 'mount --bind $sockcreate /proc/\$\$/task/\$\$/attr/sockcreate && exec "\$0" "\$@"' $VFUN "\$@"
END
chmod 0755, $wrapper;
my $d;

# With these messages and this file for labels of sockets, undef: the kernel's own.
sub up {
	my ($file, @messages) = @_;
	mkdir $_ for tmp('state');
	spew(tmp('state/domains'), join '', message(kind => 1, text => 'vfun domains 2'), @messages, message(kind => 3));
	chmod 0600, tmp('state/domains');
	$d = Vfun->new(conf => slurp('vfun.conf') . "\n[libvirt]\nconnect = nosuch:///\nuser = 64055\ngroup = 64055\nfunctions = factorial\nmemory = 64M\n");
	local $Vfun::VFUN = $file ? $wrapper : $VFUN;
	ok($d->up('--state', tmp('state')), 'vfund') or BAIL_OUT($d->log);
	ok(wait_until(10, sub { -S "$d->{run}/vmcli/$uuid{plain}/share.sock" }), 'it listens for what it remembers') or diag($d->log);
	return;
}

# "!" stands for NUL.
sub attribute {
	my ($path, $call) = @_;
	my ($name, $value) = ("security.selinux\0", "\0" x 256);
	my $n = syscall($call // 192, $path, $name, $value, 256);    # lgetxattr on x86-64
	return $n < 0 ? 'none' : substr($value, 0, $n) =~ tr/\0/!/r;
}

my @plain = (name => 'plain', uuid => $uuid{plain}, uid => 0);
my @web = (name => 'web', uuid => $uuid{web}, ivshmem => 2 << 20, label => $kvm, file => $file);
up($sockcreate, message(@web), message(@plain));
# The label, and then, over its beginning, the end of labels.
is(slurp($sockcreate) =~ tr/\0/!/r, '!' . substr($kvm, 1) . '!', 'sockets get the label, and no longer than it takes');
is(attribute("$d->{run}/vmcli/$uuid{web}/share.sock"), "$file!", "the socket's file has one");
is((stat "$d->{run}/vmcli/$uuid{web}/share.sock")[4], 64055, 'and is still given to the user');
ok(wait_until(10, sub { -l "$d->{run}/vmcli/$uuid{web}/ivshmem" }), 'the memory has a path') or diag($d->log);
is(attribute("$d->{run}/vmcli/$uuid{web}/ivshmem"), "$file!", 'and that a label');
is(attribute(readlink "$d->{run}/vmcli/$uuid{web}/ivshmem", 191), "$file!", 'and the memory one');
is(attribute("$d->{run}/vmcli/$uuid{plain}/share.sock"), 'none', 'a domain that has no label gets none');
like($d->log, qr/warning: VM web: what holds its ivshmem memory can't take label $kvm, so that a QEMU that SELinux confines can't open it: Invalid argument: /, 'who holds the memory tries to take the label');
unlike($d->log, qr/can't be labelled/, 'nothing else fails');
is_deeply([$d->down], [], 'it leaves nothing');

# The memory of an instance, which path dax shows to QEMU; vfun vm takes a QEMU of root's.
up($sockcreate, message(@web, ivshmem => 0, uid => 0), message(@plain));
my $busy = start([$VFUN, 'vm', '--run', $d->{run}, '--vm', $uuid{web}, guest_args('own'), '--path', 'copy', '--timeout', 100, '--', 'vfun', 'call', 'factorial', 1000, 1000000000]);
ok(wait_until(90, sub { $d->log =~ /instance 1 of web \(factorial\) active/ }), 'a call that takes long') or diag($d->log);
my @regions = grep { (readlink($_) // '') =~ m{^/memfd:vfun-data(?:in|out)} } glob "/proc/$d->{job}{pid}/fd/*";
my %labels = map { attribute($_, 191) => 1 } @regions;
is_deeply([@regions >= 2, keys %labels], [1, "$file!"], 'its memory has a label');
kill 'KILL', map { $_->[0] } grep { $_->[1] =~ /qemu/ } descendants($busy->{pid});
finish($busy, 20);
is_deeply([$d->down], [], 'it leaves nothing');

up(undef, message(@web, ivshmem => 0), message(@plain));
like($d->log, qr/warning: VM web: its socket can't be labelled $kvm for SELinux, and a confined QEMU won't reach it: Invalid argument: /, 'a kernel without SELinux: said');
is(scalar(() = $d->log =~ /label/g), 1, 'once') or diag($d->log);
ok(-S "$d->{run}/vmcli/$uuid{web}/share.sock", 'and nothing else is different');
is_deeply([$d->down], [], 'it leaves nothing');

up(undef, message(@web, ivshmem => 0, label => "$kvm\n"), message(@web, label => 'l' x 256), message(@plain));
is(scalar(() = $d->log =~ /a remembered domain makes no sense/g), 2, 'labels that are none');
ok(!-e "$d->{run}/vmcli/$uuid{web}", 'make no domain');
is_deeply([$d->down], [], 'it leaves nothing');
done_testing();

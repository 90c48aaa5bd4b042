#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# domain-denied.t - who may not use libvirt, or may only look: `vfun domain` says so, and the domain stays as it is
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;
use Virt;

requires('root', 'tree', 'libvirt');

my @user = (65534, 65534);
my $xml = spew(tmp('web.xml'), <<'END');
<domain type='qemu'><name>web</name><memory unit='MiB'>256</memory>
<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><os><type arch='x86_64' machine='pc'>hvm</type></os></domain>
END
my @change = (['attach', 'web'], ['attach', 'web', '--live'], ['detach', 'web']);

# `vfun domain`, as the user or as root, at one of libvirtd's two sockets.
sub domain {
	my ($virt, $as, $socket, @args) = @_;
	return run([in_tree($as, vfun_here(), 'domain', @args, '--run', '/run/vfun', '--connect', "qemu+unix:///system?socket=$virt->{dir}/$socket")]);
}

sub refused {
	my ($r, $text, $name) = @_;
	is("$r->{status} $r->{out}", '9 ', "$name: status 9") or diag($r->{err});
	like($r->{err}, qr/^vfun domain: [^\n]*$text[^\n]*\n\z/, "$name: one sentence");
	return;
}

# polkit: one runs there. What the user can't do at the one socket, and at the one for those who only look.
sub denied {
	my ($name, $conf, $polkit, $text, $looks) = @_;
	my $virt = Virt->new->configure($conf, $polkit);
	ok($virt->up, "libvirtd, $name") or BAIL_OUT($virt->log);
	is($virt->virsh('define', $xml)->{status}, 0, 'a domain');
	is($virt->virsh('start', 'web', '--paused')->{status}, 0, 'which is there') or diag($virt->log);
	my $state = sub { join '', map { $_->{out} } $virt->virsh('dumpxml', 'web', '--inactive'), $virt->virsh('dumpxml', 'web') };
	my $before = $state->();
	refused(domain($virt, \@user, 'libvirt-sock', @$_), $text, "$name: @$_") for @change, ['list'], ['xml', 'web'];
	if ($looks) {
		refused(domain($virt, \@user, 'libvirt-sock-ro', @$_), qr/web: libvirt doesn't let you: be root, or in the group libvirt \(.*/, "$name, only looking: @$_") for @change;
		is(domain($virt, \@user, 'libvirt-sock-ro', @$_)->{status}, 0, "$name, only looking: @$_") for ['list'], ['xml', 'web'];
	}
	is($state->(), $before, "$name: the domain is untouched");
	is_deeply([$virt->down], [], 'libvirtd leaves nothing');
	return;
}

denied('closed sockets', qq(auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\nunix_sock_ro_perms = "0700"\n), 0,
	qr/libvirt doesn't answer: is it running, and may you use it\? \(.*Permission denied\)/, 0);
denied('polkit', qq(auth_unix_rw = "polkit"\n), 1, qr/libvirt doesn't let you: be root, or in the group libvirt \(.*org\.libvirt\.unix\.manage.*\)/, 1);
done_testing();

#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# client-api.t - libvfun.a: what `make install` brings is enough; the programs of vfun-client(3) as they are printed, and
# buffers, on the host and in guests, on every path
use strict;
use warnings;
use lib 't/lib';
use Man;
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree', 'clang');

my $prefix = tmp('usr');
ok(make('install', "PREFIX=$prefix", 'SYSCONFDIR=' . tmp('etc')), 'make install') or BAIL_OUT('no installation');
ok(-s "$prefix/$_", $_) for qw(include/vfun.h lib/libvfun.a lib/pkgconfig/vfun.pc lib/pkgconfig/vfun-net.pc);
cmp_ok(-s "$prefix/lib/libvfun.a", '<', 200_000, 'a small library');
my @strange = grep { !/ vfun_/ } grep { / [A-TV-Z] / } split /\n/, run(['nm', '-g', '--defined-only', "$prefix/lib/libvfun.a"])->{out};
is_deeply(\@strange, [], 'no names but its own');

$ENV{PKG_CONFIG_PATH} = "$prefix/lib/pkgconfig";
my ($version) = vfun('--version')->{out} =~ /([\d.]+)/;
is(run(['pkg-config', '--modversion', 'vfun'])->{out}, "$version\n", 'its release');

# Compile a program against what was installed.
sub compile {
	my ($name, $source, $package, @cc) = @_;
	my @flags = split ' ', run(['pkg-config', '--cflags', '--libs', $package // 'vfun'])->{out};
	my $made = run([@cc ? @cc : qw(gcc -static -std=gnu11), qw(-O1 -Wall -Wextra -Werror -o), tmp($name), $source, @flags]);
	is($made->{status}, 0, "$name, with " . ($package // 'vfun')) or diag($made->{err});
	return tmp($name);
}

my %program = map { $_->[1] => $_->[2] } man_examples('man/vfun-client.3');
is(join(' ', sort keys %program), 'digest.c pieces.c', 'the programs of vfun-client(3)');
my @add;
for my $name (sort keys %program) {
	my $source = spew(tmp($name), $program{$name});
	compile("$name.clang", $source, undef, 'clang');
	push @add, '--add', compile($name =~ s/\.c$//r, $source) . ':/bin/' . $name =~ s/\.c$//r;
}
push @add, '--add', compile('buffers', 't/lib/buffers.c', undef, 'gcc', '-static', '-D_GNU_SOURCE') . ':/bin/buffers';
is(run(['nm', tmp('digest')])->{out} =~ /nettle/, '', 'no libnettle where path net is not wanted');
spew(tmp('x.cc'), "#include <vfun.h>\nint main() { vfun *v; return vfun_open(&v, \"sha256\", nullptr) ? 3 : vfun_close(v, nullptr); }\n");
compile('x', tmp('x.cc'), undef, 'g++');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run});
spew(tmp('data'), join '', map { pack 'N', $_ * 2654435761 & 0xffffffff } 1 .. 100_000);
my $data = slurp(tmp('data'));
my $digest = run(['sha256sum'], stdin => $data)->{out} =~ s/ .*//sr . "\n";
my $pieces = join '', map { run(['sha256sum'], stdin => $_)->{out} =~ s/ .*//sr . "\n" } unpack '(a65536)*', $data;

is(run([tmp('digest')], stdin => $data, env => \%env)->{out}, $digest, 'on the host: one call');
is(run([tmp('pieces')], stdin => $data, env => \%env)->{out}, $pieces, 'on the host: calls in flight');
is(run([tmp('buffers')], env => \%env)->{out}, "ok path host\n", 'on the host: buffers');
is(run([tmp('x')], env => \%env)->{status}, 0, 'on the host: a program in C++');
my $r = run([tmp('digest')], env => { VFUN_RUN_DIR => tmp('nowhere') });
is($r->{status}, 1, 'no vfund');
like($r->{err}, qr/^sha256: no vfund and no share at .*nowhere/, 'a sentence');

spew(tmp('script'), "buffers\n");
for my $case (['own', 'ivshmem'], ['own', 'copy'], ['tree', 'dax']) {
	my ($which, $path) = @$case;
	my @guest = map { finish($d->guest($which, @$_, '--path', $path, '--stdin', tmp('data'), @add), 120) }
		[['digest']], [['pieces']], [undef, '--script', tmp('script')];
	is($guest[0]{out}, $digest, "in a guest, $path: one call") or diag($guest[0]{err}, $d->log);
	is($guest[1]{out}, $pieces, "in a guest, $path: calls in flight") or diag($guest[1]{err});
	is($guest[2]{out}, "ok path $path\n", "in a guest, $path: buffers") or diag($guest[2]{err});
}

# Path net is there for who asks for it.
spew(tmp('net.c'), $program{'digest.c'} =~ s/\.size =/.path = VFUN_PATH_IS_NET, .server = "127.0.0.1:9", .key_file = "@{[tmp('key')]}", .size =/r);
spew(tmp('key'), 'lab ' . '0' x 64 . "\n");
chmod 0600, tmp('key');
compile('without', tmp('net.c'));
compile('with', tmp('net.c'), 'vfun-net', 'gcc');
like(run([tmp('without')])->{err}, qr/^sha256: path net isn't in this program: link it with .*vfun-net/, 'path net: not in this program');
like(run([tmp('with')])->{err}, qr/^sha256: (?!path net isn't in).*127\.0\.0\.1:9/, 'path net: in that one');

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
ok(make('uninstall', "PREFIX=$prefix", 'SYSCONFDIR=' . tmp('etc')), 'make uninstall');
is(run(['find', $prefix, '(', '-type', 'f', '-o', '-type', 'l', ')'])->{out}, '', 'leaves nothing');
done_testing();

#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# python.t - vfun.py: on the host, and in guests that have Python and nothing else, on every path; with numpy and without;
# the programs of vfun-python(3) as they are printed
use strict;
use warnings;
use lib 't/lib';
use Man;
use Test::More;
use Python;
use Vfun;

requires('qemu', 'kernel', 'tree');

ok(make('examples'), 'make examples') or BAIL_OUT('no examples');
my @own = qw(blur nearest);
run(['install', '-m', '755', "$BUILD/examples/$_", tmp($_)]) for @own;
my $conf = slurp('vfun.conf') =~ s/^functions = .*/$& @own/mgr;
my $d = Vfun->new(conf => $conf . join '', map { "[function $_]\nbackend = program\nprogram = " . tmp($_) . "\narena = 64M\n" } @own);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, PYTHONPATH => 'proto', PYTHONDONTWRITEBYTECODE => 1);

sub instances { return () = vfun('status', '--run', $d->{run})->{out} =~ /\bactive\b/g; }

my $r = run([host_python(), '-W', 'error', 't/lib/python.py', 'host'], env => \%env);
is($r->{out}, "ok host\n", 'on the host') or diag($r->{err}, $d->log);
is(instances(), 0, 'every instance is given back');

my %program = map { $_->[1] => spew(tmp($_->[1]), $_->[2]) } man_examples('man/vfun-python.3');
is(join(' ', sort keys %program), 'blur.py digests.py', 'the programs of vfun-python(3)');
my @words = map { "word$_" } 1 .. 20;
my $digests = join '', map { run(['sha256sum'], stdin => $_)->{out} =~ s/ .*//sr . "\n" } @words;
is(run([host_python(), $program{'digests.py'}, @words], env => \%env)->{out}, $digests, 'digests.py');
$r = run([host_python(), $program{'blur.py'}], env => \%env);
is($r->{out}, '[' . join(', ', ('[9, 9, 9, 9, 9]') x 5) . "] 675\n", 'blur.py, with numpy') or diag($r->{err});

# What numpy has of its own: types, orders of memory, views; and no copy is made.
spew(tmp('np.py'), <<'END');
import numpy
import vfun
with vfun.open("nearest", arena=8 << 20) as f:
    base = f.input(base=(1000, 16))
    assert base.dtype == numpy.float32 and base.shape == (1000, 16) and not base.flags.owndata
    base[:] = numpy.random.default_rng(1).random((1000, 16))
    left = f.inputs.free[:]
    f.set(base=base)
    index = f(numpy.asfortranarray(base[::10] + numpy.float32(1e-4)))
    assert isinstance(index, numpy.ndarray) and index.dtype == numpy.uint32, index
    assert (index == numpy.arange(0, 1000, 10)).all(), index
    assert f.inputs.free == left
    try:
        f(numpy.zeros((2, 16)))
    except TypeError as e:
        print(e)
END
$r = run([host_python(), '-W', 'error', tmp('np.py')], env => \%env);
is($r->{out}, "queries: an array of f32 is wanted, not of 'd'\n", 'numpy') or diag($r->{err});

# A program that is killed, or forgets to close.
spew(tmp('forget.py'), "import os, vfun\nf = vfun.open('sha256')\nprint(f(b'x'), flush=True)\nos._exit(3)\n");
is(run([host_python(), tmp('forget.py')], env => \%env)->{status}, 3, 'a program that ends without closing');
ok(wait_until(5, sub { instances() == 0 }), 'its instance is given back');

spew(tmp('script'), "python3 /python.py PATH\npython3 /digests.py @words\n");
for my $case (['own', 'ivshmem'], ['own', 'copy'], ['tree', 'dax']) {
	my ($which, $path) = @$case;
	spew(tmp("script.$path"), slurp(tmp('script')) =~ s/PATH/$path/r);
	$r = finish($d->guest($which, undef, '--path', $path, '--script', tmp("script.$path"), guest_python(),
		map { ('--add', $_) } 'proto/vfun.py', 't/lib/python.py', $program{'digests.py'}), 240);
	is($r->{out}, "ok $path\n$digests", "in a guest, $path") or diag($r->{err}, $d->log);
}
is(instances(), 0, 'every instance is given back');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();

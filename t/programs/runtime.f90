! SPDX-License-Identifier: MIT
!
! runtime.f90 - runtime.c's question to the Fortran library; runtime-f90.c has main() and the call
module things
	use iso_c_binding
	use iso_fortran_env
	implicit none
	integer, parameter :: how_many = 6
contains

	logical function writes()
		character(len=80) :: text
		real(real64) :: x
		integer :: n
		write (text, '(F8.3, 1X, I5, 1X, L1)') 1.5d0, 42, .true.
		read (text, *) x, n
		print *, 'a line', x
		write (error_unit, *) 'another'
		flush (output_unit)
		writes = x == 1.5d0 .and. n == 42
	end function

	logical function multiplies()
		real(real64), allocatable :: a(:, :), b(:, :), c(:, :)
		allocate (a(300, 300), b(300, 300))
		call random_seed()
		call random_number(a)
		b = transpose(a)
		c = matmul(a, b)
		multiplies = abs(c(1, 2) - dot_product(a(1, :), a(2, :))) < 1d-9 .and. sum(c) > 0
	end function

	logical function tells_time()
		integer :: v(8), count
		real :: cpu
		call date_and_time(values=v)
		call system_clock(count)
		call cpu_time(cpu)
		tells_time = v(1) > 2000 .and. cpu >= 0
	end function

	logical function calculates()
		real(real64) :: x = 0.7d0
		complex(real64) :: z
		z = exp(cmplx(0d0, x, real64))
		calculates = abs(abs(z) - 1) < 1d-12 .and. gamma(x) > 1 .and. erf(x) < 1 .and. bessel_j0(x) < 1
		calculates = calculates .and. x**1.5_real128 < 1 .and. nint(x) == 1
	end function

	logical function strings()
		character(len=:), allocatable :: s
		character(len=20) :: v
		integer :: i
		s = ''
		do i = 1, 1000
			s = s // 'ab'
		end do
		call get_environment_variable('NOSUCH', v)
		strings = len(s) == 2000 .and. index(s, 'ba') == 2 .and. trim(v) == ''
	end function

	logical function fails()
		integer :: status
		character(len=10) :: text = 'no number'
		real, allocatable :: a(:)
		real :: x
		read (text, *, iostat=status) x
		fails = status /= 0
		allocate (a(huge(0_int64) / 16), stat=status)
		fails = fails .and. status /= 0
	end function

	integer(c_int) function thing(n) bind(c)
		integer(c_int), value :: n
		logical :: ok
		ok = .false.
		select case (n)
		case (0)
			ok = writes()
		case (1)
			ok = multiplies()
		case (2)
			ok = tells_time()
		case (3)
			ok = calculates()
		case (4)
			ok = strings()
		case (5)
			ok = fails()
		end select
		thing = merge(1, 0, ok)
		if (n >= how_many) thing = 2
	end function
end module

/* Named by bcc's headers; nothing in it is used. */
#pragma once
